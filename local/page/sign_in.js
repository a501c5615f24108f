// Who is signed in. In a product this is `supabase.auth`; the people here are seeded, and sign in without a password.

import * as memory from './memory.js';

/** A sign-in lasts for a working day. */
const LIFETIME_S = 12 * 3600;

/** The token for whoever calls: what `accessToken` of supabase-js asks for at each request. */
export const accessToken = async () => memory.signIn.get()?.access_token ?? null;

/** The user who is signed in, or was until the sign-in ended. */
export const user = () => memory.signIn.get()?.user ?? null;

/** Signs in; with a lifetime below zero, as somebody whose sign-in has ended meanwhile. */
export async function signIn(user, lifetime_s = LIFETIME_S) {
  const response = await fetch('/sign-in', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ user, lifetime_s }),
  });
  memory.signIn.set({ user, ...(await response.json()) });
}
