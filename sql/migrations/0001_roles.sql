-- Group roles. The daemon's, an admin's and an auditor's login roles are made members of these.
-- Roles belong to the whole cluster, so another database may have made them already.
do $$
declare
  v_role text;
begin
  foreach v_role in array array['ringfence_daemon', 'ringfence_admin', 'ringfence_auditor'] loop
    begin
      execute format('create role %I nologin', v_role);
    exception when duplicate_object or unique_violation then
      null;
    end;
  end loop;
end
$$;

grant usage on schema ringfence to ringfence_daemon, ringfence_admin, ringfence_auditor;
