// The page works in old browsers: its files use nothing that they lack.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';

import css from '@eslint/css';
import { ESLint } from 'eslint';

import { rules } from './old_browsers.js';

const LOCAL = join(import.meta.dirname, '..');

/** What a browser may ignore if it does not know it. */
const OPTIONAL = ['forced-color-adjust', 'hyphens', 'outline'];

const linter = new ESLint({
  cwd: LOCAL,
  overrideConfigFile: true,
  overrideConfig: [
    { files: ['**/*.js'], languageOptions: { ecmaVersion: 2022 }, rules: rules() },
    { files: ['**/guard.js'], languageOptions: { ecmaVersion: 5, sourceType: 'script' } },
    {
      files: ['**/*.css'],
      plugins: { css },
      language: 'css/css',
      rules: { 'css/use-baseline': ['error', { available: 2022, allowProperties: OPTIONAL }] },
    },
  ],
});

const found = (results) => results.flatMap(({ filePath, messages }) =>
  messages.map(({ line, message }) => `${filePath.slice(LOCAL.length + 1)}:${line} ${message}`));

test('the page uses nothing that old browsers lack', async () => {
  const results = await linter.lintFiles(['page/*.js', 'page/*.css']);
  assert(results.length > 10, `${results.length} files`);
  assert.deepEqual(found(results), []);
});

for (const [file, text] of Object.entries({
  'with_resolvers.js': 'Promise.withResolvers();',
  'to_sorted.js': 'export const sorted = (list) => list.toSorted();',
  'signals.js': 'export const all = AbortSignal.any([]);',
  'global.js': 'export const time = Temporal.Now;',
  'syntax.js': 'export const pattern = /[a--b]/v;',
  'guard.js': 'const modern = 1;',
  'dark.css': ':root { color: light-dark(#000, #fff); }',
  'nested.css': 'p { & a { color: red; } }',
})) {
  test(`the linter reports ${file}`, async () => {
    assert.notDeepEqual(found(await linter.lintText(text, { filePath: join(LOCAL, 'page', file) })), []);
  });
}
