-- Optional. Apply it by hand: `psql -1 -f remove.sql`. Removes the SQL functions, the schema wpp_internal and the tables that
-- only the three functions use. The shared tables stay, with their rows, indexes and grants. The three functions then answer
-- `database_not_migrated` until the migrations are applied again. The migrations' record is removed too, if there is one.

set lock_timeout = '5s';

drop function if exists
  public.wpp_find_number, public.wpp_save_snapshot, public.wpp_claim_webhook, public.wpp_save_webhook,
  public.wpp_claim_refresh, public.wpp_save_token, public.wpp_release_refresh,
  public.wpp_begin_creation, public.wpp_save_credentials, public.wpp_assign_platform_id, public.wpp_release_creation;
drop schema if exists wpp_internal cascade;
drop table if exists
  public.wpp_platform_ids, public.wpp_creations, public.wpp_token_leases, public.wpp_numbers;

do $$
begin
  if to_regclass('supabase_migrations.schema_migrations') is not null then
    delete from supabase_migrations.schema_migrations
    where version in ('20261130120000', '20261130120100', '20261130120200', '20261130120300');
  end if;
end
$$;

notify pgrst, 'reload schema';

reset lock_timeout;
