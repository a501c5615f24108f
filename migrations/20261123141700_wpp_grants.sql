-- What is ours is for the service role alone: Supabase grants new tables and functions to everybody by default.

revoke all on table public.wpp_token_leases, public.wpp_creations, public.wpp_idempotency_keys
  from public, anon, authenticated;
grant select, insert, update, delete on table public.wpp_token_leases, public.wpp_creations,
  public.wpp_idempotency_keys to service_role;

do $$
declare
  v_function regprocedure;
begin
  for v_function in
    select p.oid::regprocedure from pg_proc p
    where p.pronamespace = 'public'::regnamespace and p.proname in (
      'wpp_now_ms', 'wpp_unix_ms', 'wpp_settings', 'wpp_number', 'wpp_find_number', 'wpp_remember_session',
      'wpp_stored_token', 'wpp_lock_settings', 'wpp_claim_refresh', 'wpp_save_token', 'wpp_fail_refresh',
      'wpp_new_platform_id', 'wpp_sub_org_id', 'wpp_works', 'wpp_seen_connected', 'wpp_chosen_number',
      'wpp_begin_creation', 'wpp_save_credentials', 'wpp_move_creation', 'wpp_leave_creation')
  loop
    execute format('revoke all on function %s from public, anon, authenticated', v_function);
    execute format('grant execute on function %s to service_role', v_function);
  end loop;
end
$$;
