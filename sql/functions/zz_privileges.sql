-- Daemon: functions only. Admin: edits policy, reads records. Auditor: reads. Nobody changes a record.
revoke all on all tables in schema ringfence from public, ringfence_daemon, ringfence_admin, ringfence_auditor;
grant select on all tables in schema ringfence to ringfence_admin, ringfence_auditor;
grant insert, update, delete on ringfence.customers, ringfence.endpoints, ringfence.grants,
  ringfence.limit_profiles, ringfence.reasons to ringfence_admin;
grant insert on ringfence.policy_changes, ringfence.revoked_grants to ringfence_admin;
grant usage on schema ringfence to ringfence_daemon, ringfence_admin, ringfence_auditor;
grant select on ringfence.reasons, ringfence.migrations to ringfence_daemon;
