import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { runningServer } from '../../src/testing/embedded/server-data.ts';
import { collect, runCli, startCli } from '../support/command-line/command-line.ts';
import { type OwnServer, startOwnServer } from '../support/servers/own-server.ts';
import { putSignal } from '../support/servers/standby.ts';
import { until } from '../support/until.ts';

let server: OwnServer;

beforeEach(async () => {
  // Without hot standby, a server in recovery refuses connections like one that is starting.
  server = await startOwnServer({ settings: ['hot_standby=off', 'authentication_timeout=600s'] });
});
afterEach(() => server?.stop());

function startMigrator() {
  const child = startCli(['migrate'], { env: { DATABASE_URL: server.url } });
  let said = '';
  child.stderr?.on('data', (chunk: Buffer) => {
    said += chunk;
  });
  return { child, result: collect(child), untilSaid: (text: string) => until(() => said.includes(text)) };
}

test('a run waits for a server that is down', async () => {
  await server.shutDown('fast');
  const { result, untilSaid } = startMigrator();
  await untilSaid('Waiting up to 30 s: Cannot connect');
  await server.start();
  const { exitCode, stdout, stderr } = await result;
  expect(exitCode, stderr).toBe(0);
  expect(stdout).toContain('Done: applied');
});

test('a run waits for a server that does not accept connections yet', async () => {
  await server.shutDown('fast');
  const data = join(server.folder, 'server', 'data');
  putSignal(join(data, 'standby.signal'));
  const starting = server.start();
  const pid = await until(() => runningServer(server.folder)?.pid);
  const { result, untilSaid } = startMigrator();
  await untilSaid('the server is starting up');
  putSignal(join(data, 'promote'));
  await until(() => {
    // The server ignores the signal until it is in recovery.
    process.kill(pid, 'SIGUSR1');
    return !existsSync(join(data, 'promote'));
  });
  await starting;
  const { exitCode, stdout, stderr } = await result;
  expect(exitCode, stderr).toBe(0);
  expect(stdout).toContain('Done: applied');
});

test('a run gives up after FILESTORE_MIGRATION_CONNECT_WAIT_MS when the server stays down', async () => {
  await server.shutDown('fast');
  const { exitCode, output } = await runCli(['migrate'], {
    env: { DATABASE_URL: server.url, FILESTORE_MIGRATION_CONNECT_WAIT_MS: '300' },
  });
  expect(exitCode).toBe(1);
  expect(output).toMatch(/^Waiting up to 0.3 s: Cannot connect/m);
  expect(output).toMatch(
    /^CONNECTION_FAILED: Cannot connect to database "postgres" on the socket in .*Check/m,
  );
});

test('a missing password ends the process at once, before the server closes the connection', async () => {
  const url = new URL(server.url);
  url.password = '';
  const { exitCode, output } = await runCli(['migrate'], { env: { DATABASE_URL: url.href } });
  expect(exitCode).toBe(1);
  expect(output).toMatch(/^CONNECTION_FAILED: .*password/m);
});

test('a signal ends the wait for a server', async () => {
  await server.shutDown('fast');
  const { child, result, untilSaid } = startMigrator();
  await untilSaid('Waiting up to');
  child.kill('SIGTERM');
  const { exitCode, output } = await result;
  expect(exitCode).toBe(1);
  expect(output).toContain('RUN_ABORTED: Stopped on request (SIGTERM). Applied and kept: nothing.');
});
