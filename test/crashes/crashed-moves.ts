import pg from 'pg';
import { connectionTo } from '../../harness/connection.ts';
import { hasCode } from '../../src/errors.ts';
import { ACTIONS } from '../../src/move/actions.ts';
import { conninfoOf } from '../../src/move/conninfo.ts';
import { asMoveFailure } from '../../src/move/failure.ts';
import { moveMount, STEP_LINES } from '../../src/move/move-mount.ts';
import { followOwnMove } from '../../src/move/own-move.ts';
import { type MoveScene, openSide, type Side } from '../../src/move/side.ts';
import { takeBack } from '../../src/move/take-back.ts';
import { type ServerName, startTwoServers, type TwoServers } from '../scaling/two-servers.ts';
import type { Points } from '../support/points.ts';
import { createMount, findDifferences } from './moved-mount.ts';

type Step = keyof typeof STEP_LINES;
const STEPS = Object.keys(STEP_LINES) as readonly Step[];
const VICTIMS = ['source', 'target', 'operator'] as const;
const MOMENTS = ['before', 'during', 'after'] as const;
/** What the operator does next: the same, the step after it, or the way back. */
const SEQUELS = ['repeated', 'skipped', 'taken back'] as const;

/** A statement of a step: the server, and the function or the command. */
interface Place {
  readonly step: Step;
  readonly statement: string;
}

interface Attack extends Place {
  readonly victim: (typeof VICTIMS)[number];
  readonly moment: (typeof MOMENTS)[number];
  strike(): Promise<void>;
}

class OperatorDied extends Error {}

/** Every victim before, during and after every statement of each step, with each sequel. Each move has a new mount. */
export async function openCrashedMoves(): Promise<Points> {
  const servers = await startTwoServers();
  try {
    const places = [...(await placesOf(servers)), ...(await placesOf(servers, BEFORE_RECEIPT))];
    const steps = new Set(places.map(({ step }) => step));
    const missing = STEPS.filter((step) => !steps.has(step));
    if (missing.length > 0) throw new Error(`No move had the steps ${missing.join(', ')}`);
    const known = new Map(places.map((place) => [`${place.step}: ${place.statement}`, place]));
    const all = [...known].flatMap(([name, place]) =>
      MOMENTS.flatMap((moment) =>
        VICTIMS.flatMap((victim) =>
          SEQUELS.map((sequel) => ({
            name: `${victim} killed ${moment} ${name}, ${sequel}`,
            play: () =>
              crash(servers, { ...place, victim, moment, strike: striking(servers, victim) }, sequel),
          })),
        ),
      ),
    );
    const summary = `${steps.size} steps with ${known.size} statements`;
    return { summary: () => summary, all, stop: () => servers.stop() };
  } catch (error) {
    await servers.stop();
    throw error;
  }
}

/** An operator who dies here leaves a source that has released the mount: the step `receive` follows. */
const BEFORE_RECEIPT: Place = { step: 'cut over', statement: 'target receive_mount' };

/** The places of a move that is not disturbed, or of one whose operator has died before the place. */
async function placesOf(servers: TwoServers, died?: Place): Promise<readonly Place[]> {
  const scene = await createMount(servers);
  if (died !== undefined) await operatorDies(servers, scene.key, died);
  const places: Place[] = [];
  await operate(servers, scene.key, (place, send) => {
    places.push(place);
    return send();
  });
  return places;
}

const operatorDies = (servers: TwoServers, key: string, place: Place) =>
  operate(
    servers,
    key,
    attackOf({ ...place, victim: 'operator', moment: 'before', strike: async () => {} }),
  ).catch(() => undefined);

async function crash(
  servers: TwoServers,
  attack: Attack,
  sequel: (typeof SEQUELS)[number],
): Promise<readonly string[]> {
  const mount = await createMount(servers);
  if (attack.step === 'receive') await operatorDies(servers, mount.key, BEFORE_RECEIPT);
  let struck: Promise<void> | undefined;
  const strike = () => {
    struck = attack.strike();
    return struck;
  };
  // A move that copies faster has fewer statements, and does not get there.
  await operate(servers, mount.key, attackOf({ ...attack, strike })).catch(() => undefined);
  // A move that meets the killed server on its other connection ends before the server is back.
  await struck;
  const faults: string[] = [];
  if (sequel === 'skipped') faults.push(...(await skip(servers, mount.key, attack.step)));
  const isBack = sequel === 'taken back' && (await goBack(servers, mount.key, faults));
  if (!isBack) await goOn(servers, mount.key, faults);
  faults.push(...(await findDifferences(servers, mount, isBack ? 'source' : 'target')));
  return faults;
}

/** Sends each statement of a move through `pass`, which may kill. */
type Pass = (place: Place, send: () => Promise<unknown>) => Promise<unknown>;

function attackOf({ step, statement, victim, moment, strike }: Attack): Pass {
  let isDead = false;
  let isStruck = false;
  const kill = async () => {
    isStruck = true;
    await strike();
    isDead = victim === 'operator';
    if (isDead) throw new OperatorDied();
  };
  return async (place, send) => {
    if (isDead) throw new OperatorDied();
    if (isStruck || place.step !== step || place.statement !== statement) return send();
    if (moment === 'before') await kill();
    const answer = send();
    // A dead operator does not see the answer.
    answer.catch(() => undefined);
    if (moment === 'during') await kill();
    await answer;
    if (moment === 'after') await kill();
    return answer;
  };
}

/** One run of the command, in this process. */
async function operate(servers: TwoServers, key: string, pass: Pass = (_, send) => send()): Promise<void> {
  let step: Step = 'prepare';
  const watched = (name: ServerName, side: Side): Side => {
    const through = <T>(statement: string, send: () => Promise<T>) =>
      pass({ step, statement: `${name} ${nameOf(statement)}` }, send) as Promise<T>;
    return {
      ...side,
      rows: <Row extends pg.QueryResultRow>(text: string) => through(text, () => side.rows<Row>(text)),
      ask: <T>(text: string) => through(text, () => side.ask<T>(text)),
    };
  };
  await withScene(servers, key, (scene) =>
    moveMount({
      ...scene,
      source: watched('source', scene.source),
      target: watched('target', scene.target),
      keepsSource: false,
      signal: new AbortController().signal,
      patienceMs: 60_000,
      onStep: (line) => {
        step = STEPS.find((one) => STEP_LINES[one] === line) ?? step;
      },
      onProgress: () => undefined,
    }),
  );
}

async function withScene<T>(
  servers: TwoServers,
  mountKey: string,
  work: (scene: MoveScene) => Promise<T>,
): Promise<T> {
  const source = await openSide(connectionTo(servers.source.url));
  try {
    const target = await openSide(connectionTo(servers.target.url));
    const conninfo = conninfoOf(connectionTo(servers.source.url));
    const scene = { mountKey, source, target, conninfo, withinMs: 10_000 };
    try {
      return await work(scene);
    } catch (error) {
      throw asMoveFailure(scene, error);
    } finally {
      await target.close();
    }
  } finally {
    await source.close();
  }
}

/** Repeats the command, and follows what it says, until the mount has moved. */
async function goOn(servers: TwoServers, key: string, faults: string[]): Promise<void> {
  for (let tries = 0; tries < 6; tries += 1) {
    try {
      return await operate(servers, key);
    } catch (error) {
      const { message } = error as Error;
      if (message.includes('--back')) await goBack(servers, key, faults);
      else if (!hasCode(error, 'CONNECTION_LOST') && !message.includes('Run this again')) {
        faults.push(`The next run failed: ${message}`);
        return;
      }
    }
  }
  faults.push('Six runs did not move the mount');
}

/** @returns whether the move was taken back: a target that has received the mount keeps it. */
async function goBack(servers: TwoServers, key: string, faults: string[]): Promise<boolean> {
  try {
    await withScene(servers, key, (scene) =>
      takeBack({ ...scene, signal: new AbortController().signal }, () => undefined),
    );
    return true;
  } catch (error) {
    const { message } = error as Error;
    if (!/has received it and takes its writes|has given it away/.test(message)) {
      faults.push(`The way back failed: ${message}`);
    }
    return false;
  }
}

/** Does the step after this one, which is refused with what to do, or does no harm. */
async function skip(servers: TwoServers, key: string, step: Step): Promise<readonly string[]> {
  const next = STEPS.slice(STEPS.indexOf(step) + 1).find(
    (one): one is keyof typeof ACTIONS => one in ACTIONS,
  );
  if (next === undefined) return [];
  try {
    await withScene(servers, key, async (scene) => {
      const own = followOwnMove(scene, (await scene.source.state(key)).move);
      await ACTIONS[next]({ ...scene, own });
    });
    return [];
  } catch (error) {
    const { message, cause } = error as Error;
    const isExplained =
      cause instanceof pg.DatabaseError ? cause.hint !== undefined : hasCode(error, 'MOVE_FAILED');
    return isExplained ? [] : [`The step "${next}" failed without a remedy: ${message}`];
  }
}

function striking(servers: TwoServers, victim: Attack['victim']): () => Promise<void> {
  return async () => {
    if (victim !== 'operator') await servers[victim].server.restart('kill');
  };
}

/** The function that a statement calls, or its command. */
function nameOf(statement: string): string {
  const [, called] = /(?:filestore\.|select )(\w+)\(/.exec(statement) ?? [];
  return called ?? statement.trim().split(/\s+/).slice(0, 2).join(' ');
}
