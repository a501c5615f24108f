// The oldest supported browsers, and what they lack.

import { features } from 'web-features';

const OLDEST = { chrome: 109, safari: 16 };

/** Returns the version as a number, from `3.2` or `≤13.1`. Returns `Infinity` if the browser never had the feature. */
const version = (text) => Number.parseFloat(text?.replace('≤', '') ?? Infinity);

const isMissing = ({ support }) => Object.entries(OLDEST).some(([browser, oldest]) => version(support[browser]) > oldest);

/** The parts of a name such as `api.AbortSignal.any_static`. For keys of CSS and HTML, all but `isStatic` are `undefined`. */
function partsOf(key) {
  const [, source, owner, member, isStatic] = /^(api|javascript\.builtins)\.(\w+)(?:\.(\w+?)(_static)?)?$/.exec(key) ?? [];
  return { source, owner, member, isStatic: Boolean(isStatic) };
}

const names = Object.values(features)
  .flatMap(({ status }) => Object.entries(status?.by_compat_key ?? {}))
  .map(([key, status]) => ({ ...partsOf(key), isMissing: isMissing(status) }))
  .filter(({ owner }) => owner);

/** What at least one of these browsers lacks: `{owner, member, isStatic}`, without a member if the whole owner is missing. */
export const MISSING = names.filter(({ isMissing }) => isMissing);

const known = new Set(names.filter(({ isMissing }) => !isMissing).map(({ owner, member }) => member ?? owner));

/**
 * Interfaces whose objects a program uses without naming the interface (`event`, `element`), so only the member's name can
 * be checked.
 */
const CHECKED_OWNERS = /^(Abort(Signal|Controller)|Document|Element|Event|FormData|Headers|HTMLElement|Navigator|Node|Request|Response|URL|Window)$/;

/**
 * Returns the ESLint rules that forbid what is missing. ESLint sees only a member's name, so names that an older object also has
 * are left out.
 */
export function rules() {
  const members = MISSING.filter(({ source, owner, member }) => member && (source !== 'api' || CHECKED_OWNERS.test(owner)));
  const properties = members
    .filter(({ member, isStatic }) => isStatic || !known.has(member))
    .map(({ owner, member, isStatic }) => (isStatic ? { object: owner, property: member } : { property: member }));
  // The data does not tell static from instance members of JavaScript's own objects.
  const builtins = members.filter(({ source }) => source !== 'api').map(({ owner, member }) => ({ object: owner, property: member }));
  const unique = new Map([...properties, ...builtins].map((one) => [JSON.stringify(one), one]));
  const globals = new Set(MISSING.filter(({ owner, member }) => !member && !known.has(owner)).map(({ owner }) => owner));
  return {
    'no-restricted-globals': ['error', ...globals],
    'no-restricted-properties': ['error', ...unique.values()],
  };
}

/** Deletes the missing features from the page's browser. Runs in the page. */
export function makeOld(missing) {
  for (const { owner, member, isStatic } of missing) {
    const object = globalThis[owner];
    if (!member) delete globalThis[owner];
    else if (object) for (const place of isStatic ? [object] : [object, object.prototype]) delete place?.[member];
  }
}
