// The user's sign-in. In a product this is `supabase.auth`; the people here are seeded, and sign in without a password.

import * as memory from './memory.js';

/** A sign-in lasts for a working day. */
const LIFETIME_S = 12 * 3600;

/** The user's token: supabase-js asks for it at each request. */
export const accessToken = async () => memory.signIn.get()?.access_token ?? null;

/** The user who is signed in, or was until the sign-in expired. */
export const user = () => memory.signIn.get()?.user ?? null;

/** Signs in and returns whether that worked. With a lifetime below zero the sign-in has expired already. */
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
