-- Optional, and applied by hand: takes away everything that the migrations have made of ours. The shared tables, their rows and
-- an index that serves others too stay. The three functions answer `database_not_migrated` from then on.

set lock_timeout = '5s';

drop function if exists
  public.wpp_release_creation(uuid, uuid, uuid),
  public.wpp_assign_platform_id(uuid, uuid, uuid),
  public.wpp_save_credentials(uuid, uuid, uuid, text, text),
  public.wpp_begin_creation(uuid, text, uuid, integer, text, uuid, uuid, text, jsonb, text),
  public.wpp_needs_credentials(uuid, text, boolean, text),
  public.wpp_platform_id(uuid, uuid),
  public.wpp_is_written_back(uuid),
  public.wpp_is_as_saved(uuid),
  public.wpp_number_to_link(uuid),
  public.wpp_new_platform_id(uuid),
  public.wpp_forget_old(uuid),
  public.wpp_lock_organization(uuid),
  public.wpp_release_refresh(uuid, uuid, uuid, text, integer),
  public.wpp_save_token(uuid, uuid, uuid, text, text, bigint, text),
  public.wpp_claim_refresh(uuid, uuid, uuid, integer, text),
  public.wpp_ms_left(timestamptz, timestamptz),
  public.wpp_lock_settings(uuid, uuid),
  public.wpp_stored_token(jsonb),
  public.wpp_save_webhook(uuid, uuid, text, text, text),
  public.wpp_claim_webhook(uuid, uuid, integer),
  public.wpp_save_snapshot(uuid, text, text, bigint, text),
  public.wpp_settle_primary(uuid, text),
  public.wpp_find_number(uuid, text, uuid),
  public.wpp_choose_number(uuid, text, uuid, boolean),
  public.wpp_mirror(uuid, text),
  public.wpp_number(uuid),
  public.wpp_primary_works(uuid, boolean),
  public.wpp_was_linked(uuid),
  public.wpp_credentials_digest(jsonb),
  public.wpp_has_credentials(jsonb),
  public.wpp_settings(jsonb),
  public.wpp_unix_ms(timestamptz),
  public.wpp_now_ms();
drop table if exists
  public.wpp_idempotency_keys, public.wpp_creations, public.wpp_token_leases, public.wpp_numbers;
notify pgrst, 'reload schema';

reset lock_timeout;
