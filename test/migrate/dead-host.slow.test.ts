import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { connectionTo } from '../../harness/connection.ts';
import { runMigrations } from '../../src/index.ts';
import { LONG_SESSION } from '../../src/settings/server-settings.ts';
import { type OwnServer, startOwnServer } from '../support/servers/own-server.ts';

let server: OwnServer;

beforeAll(async () => {
  server = await startOwnServer({ listen: 'tcp', settings: ['log_statement=all', 'log_line_prefix=<%p> '] });
});
afterAll(() => server?.stop());

test('both sessions of a run make the server detect soon that their host is gone', async () => {
  await runMigrations({ connection: connectionTo(server.url) });
  const log = readFileSync(join(server.folder, 'postgres.log'), 'utf8');
  const keepalives = Object.entries(LONG_SESSION).filter(([name]) => name.startsWith('tcp_'));
  expect(keepalives).toHaveLength(4);
  for (const [name, value] of keepalives) {
    const asked = log.matchAll(new RegExp(`^<(\\d+)> [^<]*"${name}":"${value}"`, 'gm'));
    const sessions = new Set([...asked].map(([, pid]) => pid));
    expect(sessions.size, name).toBe(2);
  }
});
