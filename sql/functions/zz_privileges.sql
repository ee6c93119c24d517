-- Daemon: functions only. Admin: edits policy, reads records. Auditor: reads. Nobody changes a record.
revoke all on all tables in schema ringfence from public, ringfence_daemon, ringfence_admin, ringfence_auditor;
grant select on all tables in schema ringfence to ringfence_admin, ringfence_auditor;
grant insert, update, delete on ringfence.customers, ringfence.endpoints, ringfence.grants,
  ringfence.limit_profiles, ringfence.reasons, ringfence.do_not_originate, ringfence.do_not_call,
  ringfence.call_consents, ringfence.destination_rules, ringfence.campaigns, ringfence.calling_hours
  to ringfence_admin;
grant insert on ringfence.policy_changes, ringfence.revoked_grants, ringfence.vettings, ringfence.customer_states,
  ringfence.findings to ringfence_admin;
grant update on ringfence.provider, ringfence.infractions, ringfence.notices, ringfence.notice_deliveries
  to ringfence_admin;
grant usage on schema ringfence to ringfence_daemon, ringfence_admin, ringfence_auditor;
grant select on ringfence.reasons, ringfence.migrations to ringfence_daemon;
