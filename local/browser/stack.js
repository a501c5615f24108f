// The whole system as `make dev` runs it, on separate ports and with temporary data.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

const WORKSPACE = join(import.meta.dirname, '../..');

const SUPERVISE = join(WORKSPACE, 'local/src/supervise.sh');

/** The start timeout: nothing may be built yet, and the machine may be busy. */
const START_TIMEOUT_MS = 300_000;

/** Each service, by the variable that names its port. */
const PORTS = ['', '_PAGE', '_PLATFORM', '_SUPABASE', '_POSTGRES', '_POSTGREST'];

/** Starts the system. The functions accept only the page at this machine's address. */
export async function startStack() {
  const data = await mkdtemp(join(tmpdir(), 'connect-page-'));
  // If this user is root, PostgreSQL runs as another user.
  await chmod(data, 0o755);
  const ports = await freePorts(PORTS.length);
  const env = Object.fromEntries(PORTS.map((name, index) => [`WPP_LOCAL${name}_PORT`, String(ports[index])]));
  const page = `http://127.0.0.1:${env.WPP_LOCAL_PAGE_PORT}`;
  // The script stops the system when its standard input ends, even if this process is killed.
  const local = spawn('sh', [SUPERVISE, '15', 'cargo', 'run', '--quiet', '--package', 'local', 'dev'], {
    cwd: WORKSPACE,
    env: { ...process.env, ...env, WPP_LOCAL_DATA: data, CORS_ALLOWED_ORIGINS: page },
    detached: true,
  });
  const lines = [];
  const ended = once(local, 'exit').then(() => {
    throw new Error(`the system ended:\n${lines.join('\n')}`);
  });
  const ready = new Promise((resolve, reject) => {
    setTimeout(() => reject(new Error(`the system does not start:\n${lines.join('\n')}`)), START_TIMEOUT_MS).unref();
    for (const output of [local.stdout, local.stderr]) {
      createInterface(output).on('line', (line) => {
        lines.push(line);
        if (line.includes(`${page}/`)) resolve();
      });
    }
  });
  ended.catch(() => {});
  await Promise.race([ready, ended]);
  return {
    page: `${page}/`,
    /** Controls the platform's simulator. */
    async platform(path, body, method = 'POST') {
      const url = `http://127.0.0.1:${env.WPP_LOCAL_PLATFORM_PORT}/_sim/${path}`;
      const response = await fetch(url, { method, body: body && JSON.stringify(body) });
      assert(response.ok, `${path}: ${response.status}`);
      return response.status === 204 ? null : response.json();
    },
    /** Changes a number as time or the product would: `expire-token`, `age` or `remove`. */
    async change(path, session) {
      const headers = { 'Content-Type': 'application/json' };
      const response = await fetch(`${page}/${path}`, { method: 'POST', headers, body: JSON.stringify({ session }) });
      assert(response.ok, `${path}: ${response.status}`);
    },
    /** The code that the platform shows now. */
    async codeOf(session) {
      return (await this.platform(`qr?session=${session}`, undefined, 'GET')).qr;
    },
    async end() {
      local.stdin.end();
      await ended.catch(() => {});
      await rm(data, { recursive: true, force: true });
    },
  };
}

/** Below the range of ports for outgoing connections. */
export async function freePorts(count) {
  const ports = new Set();
  while (ports.size < count) {
    const port = 12_000 + Math.floor(Math.random() * 20_000);
    if (await isFree(port)) ports.add(port);
  }
  return [...ports];
}

const isFree = (port) => new Promise((resolve) => {
  const server = createServer();
  server.once('error', () => resolve(false));
  server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
});
