// The user's sign-in. In a product this is `supabase.auth`; here the users are seeded, and sign in without a password.

import * as memory from './memory.js';

/** A sign-in lasts for a working day. */
const LIFETIME_S = 12 * 3600;

/** The user's token, which supabase-js requests for every call. */
export const accessToken = async () => memory.signIn.get()?.access_token ?? null;

/** The user who is signed in, or was until the sign-in expired. */
export const user = () => memory.signIn.get()?.user ?? null;

/** Signs in and returns whether that worked. With a negative lifetime, the sign-in has already expired. */
export async function signIn(user, lifetime_s = LIFETIME_S) {
  const response = await fetch('/sign-in', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ user, lifetime_s }),
  }).catch(() => null);
  if (!response?.ok) return false;
  memory.signIn.set({ user, ...(await response.json()) });
  return true;
}
