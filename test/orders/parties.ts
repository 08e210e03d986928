import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { packageFolder } from '../../harness/compiled.ts';
import { closePool, getPool, type MigrationEvent, withTransaction } from '../../src/index.ts';
import { collect, runCli } from '../support/command-line/command-line.ts';
import { KINDS } from '../support/packages/each-kind.ts';
import type { Host } from '../support/processes/host.ts';

/** What works on a database beside a run of migrations. */
export interface Party {
  /** Called before anyone begins. */
  prepare?(url: string): Promise<unknown>;
  begin(scene: PartyScene, url: string): Work;
}

export interface PartyScene {
  readonly host: Host;
  /** The package with one more migration of each kind. */
  readonly folder: string;
}

export interface Work {
  readonly ended: Promise<Ended>;
  /** Whether it has said that it waits for another one. */
  isWaiting(): boolean;
}

/** How a party ended. */
export interface Ended {
  /** In a word, which is counted. */
  readonly how: string;
  /** What is wrong about it: all but success, and errors that say what to do. */
  readonly fault?: string | undefined;
  /** How many migrations it applied. */
  readonly applied: number;
}

/** How a run ended that had a temporary failure. */
export const AGAIN = 'tried again';

const run: Party = {
  begin({ host, folder }, url) {
    const { events, outcome } = host.run({ folder, env: { DATABASE_URL: url } });
    const isWait = (event: MigrationEvent) =>
      event.type === 'retry' || (event.type === 'waiting' && event.for === 'lock');
    return {
      isWaiting: () => events.some(isWait),
      ended: outcome.then((end): Ended => {
        if (!end.ok) return { how: 'failed', fault: `${end.error.code}: ${end.error.message}`, applied: 0 };
        return { how: end.report.attempts > 1 ? AGAIN : 'done', applied: end.report.applied.length };
      }),
    };
  },
};

/** A program that must end in one of some ways: each is an exit code, and what it prints. */
function program(
  ways: Readonly<Record<string, readonly [exitCode: number, says: RegExp]>>,
  begin: (scene: PartyScene, env: { readonly DATABASE_URL: string }) => ReturnType<typeof runCli>,
): Party {
  return {
    begin: (scene, url) => ({
      isWaiting: () => false,
      ended: begin(scene, { DATABASE_URL: url }).then(({ exitCode, output }) => {
        const [how] =
          Object.entries(ways).find(([, [code, says]]) => code === exitCode && says.test(output)) ?? [];
        const applied = Number(/(\d+) committed migrations executed/.exec(output)?.[1] ?? 0);
        const fault = how === undefined ? `It ended with ${exitCode}: ${output}` : undefined;
        return { how: how ?? 'failed', fault, applied };
      }),
    }),
  };
}

/** graphile-migrate's own command line. It does not wait, and does not say what to do: operations.md does. */
const graphile = program(
  {
    done: [0, /committed migrations executed|Already up to date/],
    refused: [1, /Failed to get exclusive lock/],
  },
  ({ folder }, env) => {
    const cli = join(folder, 'node_modules', 'graphile-migrate', 'dist', 'cli.js');
    const stdio = ['ignore', 'pipe', 'pipe'] as const;
    const options = { cwd: folder, env: { PATH: process.env.PATH, ...env }, stdio: [...stdio] };
    return collect(spawn(process.execPath, [cli, 'migrate'], options));
  },
);

const VERIFIED = {
  same: [0, /the schema matches its migrations/],
  unchecked: [1, /could not check\. .*(Apply them first|Compare it with that version)/],
} as const;
const verify = program(VERIFIED, ({ folder }, env) => runCli(['verify'], { folder, env }));
/** That of the version before, as a scheduled job that still has the old image. */
const olderVerify = program(VERIFIED, (_, env) => runCli(['verify'], { folder: packageFolder(), env }));
const status = program({ current: [0, /: current/], pending: [3, /: pending/] }, ({ folder }, env) =>
  runCli(['status'], { folder, env }),
);

const noteOf = (id: number, note: string) => ({
  name: 'note',
  text: 'update app.items set note = note || $2 where id = $1 returning *',
  values: [id, note],
});

async function write(): Promise<void> {
  await getPool().query(noteOf(1, ' alone'));
  await withTransaction(
    async (client) => {
      await client.query(noteOf(2, ' first'));
      await client.query(noteOf(3, ' second'));
    },
    { retries: 3 },
  );
}

/** A service that has prepared its statement before the migrations begin. */
const writer: Party = {
  prepare(url) {
    Object.assign(process.env, { FILESTORE_DATABASE_URL: url, FILESTORE_PGPOOL_MAX: '1' });
    return getPool().query(noteOf(0, ''));
  },
  begin: () => ({
    isWaiting: () => false,
    ended: write()
      .then(
        (): Ended => ({ how: 'done', applied: 0 }),
        (error): Ended => ({ how: 'failed', fault: `The writer was refused: ${error}`, applied: 0 }),
      )
      .finally(closePool),
  }),
};

export type PartyName = 'run' | 'graphile' | 'verify' | 'olderVerify' | 'status' | 'writer';

export const PARTIES: Readonly<Record<PartyName, Party>> = {
  run,
  graphile,
  verify,
  olderVerify,
  status,
  writer,
};

/** How many migrations both parties apply together. */
export const TO_APPLY = KINDS.length;
