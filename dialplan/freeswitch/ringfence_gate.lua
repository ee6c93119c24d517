-- ringfence_gate.lua: puts each new outbound leg to the ringfence daemon before its INVITE leaves.
--
-- FreeSWITCH runs it in the thread that originates the leg. In vars.xml (see ringfence_vars.xml):
--
--     <X-PRE-PROCESS cmd="set" data="execute_on_originate_SUFFIX=lua ringfence_gate.lua"/>
--
-- SUFFIX must be unguessable: a dial string could otherwise replace the hook by a variable of the same name.
--
-- Settings are read from global variables alone, never from the channel, whose variables a dial string can set:
--
--     ringfence_daemons    HOST:PORT, several separated by commas; tried in order     127.0.0.1:8084
--     ringfence_fail       closed, or open to let legs out when no daemon answered     closed
--     ringfence_wait       seconds for all daemons together, up to one less in effect  3
--     ringfence_emergency  numbers that leave without asking, separated by commas      911,933,112,988
--     ringfence_internal   legs that leave without asking: channel names, * matches    loopback/*
--                          anything but "/" and "@", for example sofia/internal/*@192.0.2.10:5060; name them in
--                          the daemon's legs.internal too, or its watch takes them for legs that never asked
--
-- A daemon that accepts and then hangs costs the leg its life when the wait is over, with ringfence_fail=open too.

local FAILED = "SWITCH_CONGESTION"  -- Q.850 42, SIP 503: nothing was judged
local MAX_DELAY_MS = 10000

-- What the daemon answers with; cleared first, because a dial string may have set them.
local ANSWER = { "verdict", "reason", "sip_code", "cause", "attest", "decision", "origid", "customer", "delay_ms",
    "identity", "seal", "show" }
-- What this script tells the daemon about the leg that asked for this one.
local ASKER = { account = "accountcode", sip_user = "sip_auth_username", trunk = "sip_gateway_name" }
-- With one of these the channel's name no longer says where the INVITE goes.
local REWRITES = { "sip_invite_req_uri", "sip_destination_prefix", "origination_channel_name", "sip_route_uri",
    "sip_invite_route_uri" }

local function global(name, default)
    local value = freeswitch.getGlobalVariable("ringfence_" .. name)
    if value == nil or value == "" then return default end
    return value
end

local function words(text)
    return string.gmatch(text, "[^,%s]+")
end

local function escaped(text)
    return (string.gsub(text, "[%-%.%+%[%]%(%)%$%^%%%?]", "%%%0"))
end

local function log(level, text)
    freeswitch.consoleLog(level, "ringfence: " .. text .. "\n")
end

-- Everything the switch knows about the leg. Its header lines come before the channel variables, each of which begins
-- with "variable_", so the first line of a name is the switch's own whatever a dial string has set.
local function first(dump, name)
    return string.match("\n" .. dump, "\n" .. escaped(name) .. ": ([^\r\n]*)")
end

local function decoded(text)
    return (string.gsub(text or "", "%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

local function rewritten(dump)
    for _, name in ipairs(REWRITES) do
        if first(dump, "variable_" .. name) then return true end
    end
    return false
end

local function is_emergency(name, numbers)
    local number = string.match(name, "^sofia/[^/]+/([^/@]+)$") or string.match(name, "^sofia/[^/]+/([^/@]+)@[^/@]+$")
    number = string.gsub(number or "", "^sips?:", "")
    for emergency in words(numbers) do
        if number == emergency then return true end
    end
    return false
end

local function is_internal(name, patterns)
    for pattern in words(patterns) do
        if string.match(name, "^" .. string.gsub(escaped(pattern), "%*", "[^/@]*") .. "$") then return true end
    end
    return false
end

-- Whether the INVITE could go elsewhere than an internal channel's name says.
local function led_elsewhere(dump)
    local url = decoded(first(dump, "variable_sip_destination_url"))
    return string.find(string.lower(url), "fs_path", 1, true)
        or string.find(dump, "\nvariable_execute_on_originate", 1, true)
        or string.find(dump, "\nvariable_api_on_originate", 1, true)
end

-- Whether the leg may leave without being asked about, and why.
local function passes(api, uuid)
    local numbers = global("emergency", "911,933,112,988")
    local patterns = global("internal", "loopback/*")
    -- Cheap, and a dial string can lie here: enough to see that the leg does not even claim to be one of these.
    local claimed = session:getVariable("channel_name") or ""
    if not is_emergency(claimed, numbers) and not is_internal(claimed, patterns) then return nil end
    local dump = api:execute("uuid_dump", uuid) or ""
    local name = decoded(first(dump, "Channel-Name"))
    if rewritten(dump) then return nil end
    if is_emergency(name, numbers) then return "emergency" end
    if is_internal(name, patterns) and not led_elsewhere(dump) then return "internal" end
    return nil
end

-- session:ready() is false for a leg whose INVITE has not left yet.
local function alive()
    local state = session:getState()
    return state ~= "CS_HANGUP" and state ~= "CS_REPORTING" and state ~= "CS_DESTROY"
end

local function nonce()
    local source = io.open("/dev/urandom", "rb")
    local bytes = source and source:read(16)
    if source then source:close() end
    if not bytes or #bytes < 16 then return nil end
    return (string.gsub(bytes, ".", function(char) return string.format("%02x", string.byte(char)) end))
end

local function asker_uuid()
    return string.match(session:getVariable("originating_leg_uuid") or "", "^[%w%-]+$")
end

local function describe_asker(api)
    local asker = asker_uuid()
    local function value_of(source)
        local value = asker and api:execute("uuid_getvar", asker .. " " .. source) or ""
        if value == "_undef_" or string.sub(value, 1, 4) == "-ERR" then return "" end
        return value
    end
    local function tell(name, value) session:setVariable("ringfence_asker_" .. name, value) end
    for name, source in pairs(ASKER) do tell(name, value_of(source)) end
    -- How it came to dial: sent on by a REFER, or by a 3xx; and by whom, if by the channel it was connected to.
    local redirected = value_of("sip_redirected_to") ~= "" and value_of("transfer_source") ~= ""
    tell("referred", value_of("sip_refer_to") ~= "" and "true" or "")
    tell("redirected", redirected and "true" or "")
    tell("bridged", string.match(value_of("last_bridge_to"), "^[%w%-]+$") or "")
    tell("form", "2")
end

-- The number of the party that causes the leg, where that is not the one whose channel dials.
local function show(number)
    if not string.match(number or "", "^%+?%d+$") then return end
    session:execute("set_profile_var", "caller_id_number=" .. number)
    session:execute("set_profile_var", "caller_id_name=" .. number)
end

-- The status its caller gets when the call fails with this leg: 403, where FreeSWITCH would make 603 of CALL_REJECTED.
local function tell_asker(api, code)
    local asker = asker_uuid()
    if asker and string.match(code, "^[4-6]%d%d$") then
        api:execute("uuid_setvar", asker .. " last_bridge_proto_specific_hangup_cause sip:" .. code)
    end
end

-- "allow", "delay" or "reject" from the first daemon that answers, "" when none did.
local function ask(api, uuid)
    local secret = nonce()
    if not secret then return "" end
    describe_asker(api)
    session:setVariable("ringfence_nonce", secret)
    local group = "ringfence_" .. uuid
    local wait = tonumber(global("wait", "3")) or 3
    api:execute("sched_api", "+" .. math.max(1, math.floor(wait)) .. " " .. group .. " uuid_kill " .. uuid .. " " .. FAILED)
    local answer = ""
    for address in words(global("daemons", "127.0.0.1:8084")) do
        session:execute("socket", address .. " full")
        local word, echoed = string.match(session:getVariable("ringfence_verdict") or "", "^(%a+)%.(%x+)$")
        if echoed == secret then answer = word end
        if answer ~= "" or not alive() then break end
        log("WARNING", "no verdict from " .. address .. " for " .. uuid)
    end
    api:execute("sched_del", group)
    session:setVariable("ringfence_nonce", "")
    return answer
end

local function wait_ms(asked)
    local left = math.min(tonumber(asked) or 0, MAX_DELAY_MS)
    while left > 0 and alive() do
        freeswitch.msleep(math.min(left, 50))
        left = left - 50
    end
end

local function gate()
    local uuid = session:get_uuid()
    for _, name in ipairs(ANSWER) do session:setVariable("ringfence_" .. name, "") end
    session:setVariable("socket_resume", "")  -- it would abort a leg the daemon lets out
    session:setVariable("outbound_redirect_fatal", "")  -- the global one counts, whatever the dial string says
    session:setVariable("sip_redirected_to", "")  -- the switch's own, from now on
    if not string.match(uuid, "^[%w%-]+$") then  -- origination_uuid holds any text, and this goes into commands
        session:hangup("CALL_REJECTED")
        return
    end
    local api = freeswitch.API()
    local why = passes(api, uuid)
    if why then
        session:setVariable("ringfence_reason", why)
        return
    end
    local answer = ask(api, uuid)
    if answer == "allow" or answer == "delay" then show(session:getVariable("ringfence_show")) end
    if answer == "allow" then return end
    if answer == "delay" then
        wait_ms(session:getVariable("ringfence_delay_ms"))
        return
    end
    if answer == "reject" then
        tell_asker(api, session:getVariable("ringfence_sip_code") or "")
        session:hangup("CALL_REJECTED")  -- the daemon has hung up already, with the cause of its reason
        return
    end
    session:setVariable("ringfence_reason", "daemon_unavailable")
    if global("fail", "closed") == "open" and alive() then
        log("WARNING", "nobody answered for " .. uuid .. ": it leaves unjudged (ringfence_fail=open)")
        return
    end
    log("ERR", "nobody answered for " .. uuid .. ": refused")
    session:hangup(FAILED)
end

-- An error in this script must refuse the leg, not let it pass.
local fine, fault = pcall(gate)
if not fine then
    log("ERR", "the gate failed, the leg is refused: " .. tostring(fault))
    session:hangup(FAILED)
end
