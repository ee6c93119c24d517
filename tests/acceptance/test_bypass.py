import socket, threading, time
from tests.acceptance.site import Site
from tests.lab.process import wait_until

def dump(site, path):
    s = socket.create_connection(("127.0.0.1", site.asterisk.ami_port))
    s.sendall(b"Action: Login\r\nUsername: lab\r\nSecret: lab-secret\r\n\r\n")
    t0=time.monotonic()
    def run():
        buf=b""
        with open(path,"a") as f:
            while True:
                try: d=s.recv(65536)
                except OSError: return
                if not d: return
                buf+=d
                while b"\r\n\r\n" in buf:
                    m,buf=buf.split(b"\r\n\r\n",1)
                    t=m.decode(errors="replace").replace("\r","")
                    if any(x in t for x in ("Event: DialBegin","Event: Newchannel","Event: Hangup\n","Event: BlindTransfer","Event: AttendedTransfer","Event: Status","Event: OriginateResponse", "Event: LocalBridge","Event: DialState", "Event: DialEnd", "Event: NewConnectedLine","Event: NewCallerid","Response:")):
                        f.write(f"--- {time.monotonic()-t0:.4f}\n{t}\n"); f.flush()
    threading.Thread(target=run,daemon=True).start()
    return s

def test_probe(site: Site):
    s = dump(site, f"/tmp/probe{site.version}.txt")
    mark = lambda x: open(f"/tmp/probe{site.version}.txt","a").write(f"\n######## {x}\n")
    party = site.customer()
    site.daemon.stop()
    def go(name, f):
        time.sleep(0.3); mark(name); f()
        time.sleep(0.3)
        s.sendall(b"Action: Status\r\nVariables: RINGFENCE_DECISION,RINGFENCE_VERDICT,DIALEDPEERNUMBER\r\n\r\n"); time.sleep(0.3)
        site.asterisk.cli("channel request hangup all"); time.sleep(0.3)
    ori = {"Action":"Originate","Application":"Wait","Data":"2","CallerID":f"X <{party.number}>","Account":party.name,"Async":"true"}
    go("ami silent", lambda: site.manager({**ori,"Channel":"PJSIP/19095551111@watched-silent"}))
    go("ami answers", lambda: site.manager({**ori,"Channel":"PJSIP/19095551111@watched-answers"}))
    go("cli", lambda: site.asterisk.cli("channel originate PJSIP/19095551112@watched-rings application Wait 2"))
    go("local unasked", lambda: site.manager({**ori,"Channel":"Local/19095551113@unasked"}))
    go("local unasked exten", lambda: site.manager({"Action":"Originate","Context":"unasked","Exten":"19095551114","Priority":"1","Channel":"Local/19095551113@unasked","Async":"true","CallerID":f"X <{party.number}>","Account":party.name}))
    run=None
    from tests.lab.sipp import Call
    class P: pass
    import subprocess
    site.daemon.start()
    go("hooked", lambda: site.start_calls(party,[Call("19095551115",party.number)]))
    go("hooked rings", lambda: site.start_calls(party,[Call("19075551115",party.number)],hold_ms=3000))
    go("bypass alive", lambda: site.manager({**ori,"Channel":"PJSIP/19095551111@watched-silent","CallerID":"foo <123>"}))
    s.close()
