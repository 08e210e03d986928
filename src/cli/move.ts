import { FilestoreError, SettingsError } from '../errors.ts';
import type { MoveScene } from '../move/side.ts';
import { describeConnection } from '../settings/database.ts';
import { type ConnectionSettings, connectionFrom } from '../settings/settings.ts';
import { paragraph, seconds } from '../text.ts';
import { defineCommand, JSON_OPTION } from './define-command.ts';
import type { MoveDocument, ReadinessDocument } from './documents.ts';
import { DONE, FAILED } from './exit-codes.ts';
import type { Output } from './output.ts';
import { withSignal } from './signals.ts';

const PURPOSE = 'filestore move';
const PATIENCE_MS = 60_000;
const VARIABLE = /^[A-Za-z_][A-Za-z0-9_]*$/;

export const move = defineCommand({
  name: 'move',
  argument: 'mount',
  summary: 'move a mount to another server, while services use it; after any stop, the same command goes on',
  options: {
    json: JSON_OPTION,
    to: { type: 'string', value: '<variable>', help: 'the variable with the URL of the target' },
    from: {
      type: 'string',
      value: '<variable>',
      help: 'the variable with the URL by which the target reads the source (default: that of the source)',
    },
    within: { type: 'string', value: '<seconds>', help: 'how long the cut-over may take (10)' },
    keep: { type: 'boolean', help: 'do not erase the mount on the source; without it, a later run does' },
    back: { type: 'boolean', help: 'take the move back' },
    'dry-run': {
      type: 'boolean',
      help: 'say what it would do, and whether both servers are ready; changes nothing',
    },
  },
  run(output, flags, withDatabase) {
    const target = readUrl('to', flags.to);
    return withDatabase(output, (source) =>
      withSides(flags.mount, source, target, flags.from, readSeconds(flags.within), (scene, reader) => {
        if (flags['dry-run']) return dryRun(output, scene, reader);
        return flags.back ? takeItBack(output, scene) : moveIt(output, scene, flags.keep);
      }),
    );
  },
});

async function withSides(
  mountKey: string,
  from: ConnectionSettings,
  to: ConnectionSettings,
  readerVariable: string | undefined,
  withinMs: number,
  work: (scene: MoveScene, reader: ConnectionSettings) => Promise<number>,
): Promise<number> {
  const [{ openSide }, { conninfoOf }, { asMoveFailure }] = await Promise.all([
    import('../move/side.ts'),
    import('../move/conninfo.ts'),
    import('../move/failure.ts'),
  ]);
  const reader = readerVariable === undefined ? from : readUrl('from', readerVariable);
  const source = await openSide(from);
  try {
    const target = await openSide(to);
    const scene = { mountKey, source, target, conninfo: conninfoOf(reader), withinMs };
    try {
      return await work(scene, reader);
    } catch (error) {
      throw asMoveFailure(scene, error);
    } finally {
      await target.close();
    }
  } finally {
    await source.close();
  }
}

async function moveIt(output: Output, scene: MoveScene, keepsSource: boolean): Promise<number> {
  const { moveMount } = await import('../move/move-mount.ts');
  await warnOfRisk(output, scene);
  const report = await withSignal((signal) => {
    signal.addEventListener('abort', () => output.warn('Stopping. A cut-over that has begun ends first.'));
    return moveMount({
      ...scene,
      keepsSource,
      signal,
      patienceMs: PATIENCE_MS,
      onStep: output.say,
      onProgress: output.progress,
    });
  });
  const pause = report.pauseMs === null ? '' : `; no server took writes for ${seconds(report.pauseMs)}`;
  output.say(`Done: mount "${report.mount}" is on ${report.target}${pause}`);
  output.document({ ok: true, command: 'move', ...report } satisfies MoveDocument);
  return DONE;
}

async function warnOfRisk(output: Output, { mountKey, source }: MoveScene): Promise<void> {
  const { copyRisk } = await import('../move/copy-risk.ts');
  const risk = await copyRisk(mountKey, source);
  if (risk !== undefined) output.warn(risk);
}

async function takeItBack(output: Output, scene: MoveScene): Promise<number> {
  const { takeBack } = await import('../move/take-back.ts');
  const report = await withSignal((signal) => {
    signal.addEventListener('abort', () => output.warn('Stopping.'));
    return takeBack({ ...scene, signal }, output.say);
  });
  output.say(`Done: mount "${report.mount}" stays on ${report.source}`);
  output.document({ ok: true, command: 'move', ...report } satisfies MoveDocument);
  return DONE;
}

async function dryRun(output: Output, scene: MoveScene, reader: ConnectionSettings): Promise<number> {
  const { checkReadiness } = await import('../move/check-readiness.ts');
  await warnOfRisk(output, scene);
  const report = await checkReadiness(scene.mountKey, scene.source, scene.target, reader);
  const lines = report.checks.map(({ ok, server, need, remedy }) =>
    ok ? `OK       ${server}: ${need}` : `MISSING  ${server}: ${need}. ${remedy}`,
  );
  const { next, expectedPauseMs } = report;
  for (const line of [...lines, `Next: ${next}`]) output.say(line);
  if (expectedPauseMs !== null) output.say(`Expected pause: ${seconds(expectedPauseMs)}`);
  output.say(`The target's server will read ${describeConnection(reader)}. Nothing was changed.`);
  const ok = report.checks.every((check) => check.ok);
  if (ok) {
    output.document({ ok, command: 'move', dryRun: true, ...report } satisfies ReadinessDocument);
    return DONE;
  }
  const missing = report.checks.filter((check) => !check.ok).length;
  const error = new FilestoreError(
    'MOVE_FAILED',
    `${missing} of ${report.checks.length} conditions of the move are missing.`,
  );
  output.warn(`${output.paint.bad(error.code)}: ${error.message}`);
  output.document({
    ok,
    command: 'move',
    dryRun: true,
    ...report,
    error: { code: error.code, message: error.message },
  } satisfies ReadinessDocument);
  return FAILED;
}

function readUrl(option: string, variable: string | undefined): ConnectionSettings {
  if (variable === undefined || !VARIABLE.test(variable)) {
    const message = paragraph(
      `--${option} needs the name of a variable that holds a URL. What was given is not shown here.`,
      'Set a variable, such as TARGET_URL, and give its name.',
    );
    throw new SettingsError(option, message);
  }
  const connection = connectionFrom(process.env, [variable], PURPOSE);
  if (connection !== undefined) return connection;
  throw new SettingsError(
    variable,
    `${variable} is not set. Set it to the URL of the database, or correct its name.`,
  );
}

function readSeconds(text: string | undefined): number {
  if (text === undefined) return 10_000;
  const value = Number(text);
  if (/^\d{1,4}$/.test(text) && value >= 1 && value <= 3600) return value * 1000;
  throw new SettingsError(
    'within',
    '--within is not a whole number of seconds from 1 to 3600. Correct it, or leave it out for 10.',
  );
}
