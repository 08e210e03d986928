import { afterEach, expect, test, vi } from 'vitest';
import { migrationConnection } from '../../src/index.ts';
import { conninfoOf } from '../../src/move/conninfo.ts';

afterEach(() => {
  vi.unstubAllEnvs();
});

function conninfo(url: string): string | undefined {
  const connection = migrationConnection({ DATABASE_URL: url });
  return connection && conninfoOf(connection);
}

test('a subscription connects as this process does, also by PG variables', () => {
  vi.stubEnv('PGSSLMODE', 'require');
  vi.stubEnv('PGUSER', 'mover');
  vi.stubEnv('PGPASSWORD', 'x');
  expect(conninfo('postgres://src.example/app')).toBe(
    "host='src.example' port='5432' dbname='app' user='mover' password='x' sslmode='verify-full'",
  );
});

test('a subscription has the certificate of the client, as paths on its server', () => {
  const url = 'postgres://u@src.example/app?sslmode=verify-full&sslrootcert=/ca&sslcert=/c&sslkey=/k';
  expect(conninfo(url)).toContain("sslmode='verify-full' sslrootcert='/ca' sslcert='/c' sslkey='/k'");
});
