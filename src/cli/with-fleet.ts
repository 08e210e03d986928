import { SettingsError } from '../errors.ts';
import type { Command, CommandOption } from './define-command.ts';

type Options = Readonly<Record<string, CommandOption>>;

const FLEET_OPTIONS = {
  databases: {
    type: 'string',
    value: '<list>',
    help: [
      'many databases: a file, or env:VARIABLE, with a name and a URL (or the variable',
      'that holds it) on each line',
    ],
    isShared: true,
    forFleets: 'only',
  },
  concurrency: {
    type: 'string',
    value: '<n>',
    help: 'how many of them at once, 8 by default',
    isShared: true,
    forFleets: 'only',
  },
} as const satisfies Options;

/** When a fleet stops. For commands that change databases. */
export const STOP_OPTIONS = {
  first: {
    type: 'string',
    value: '<n>',
    help: 'start the others only after the first n, and only if none of these failed',
    isShared: true,
    forFleets: 'only',
  },
  'stop-on-failure': {
    type: 'boolean',
    help: 'start no other database after one failed',
    isShared: true,
    forFleets: 'only',
  },
} as const satisfies Options;

/** The command, which with `--databases` works on all databases of a list. */
export function withFleet(command: Command, more: Options = {}): Command {
  const options: Options = { ...command.options, ...FLEET_OPTIONS, ...more };
  return {
    ...command,
    options,
    async run(output, flags, withDatabase) {
      const { databases } = flags;
      for (const [name, option] of Object.entries(options)) {
        const isGiven = flags[name] !== undefined && flags[name] !== false;
        if (isGiven) refuseMisplaced(name, option, databases !== undefined);
      }
      if (typeof databases !== 'string') return command.run(output, flags, withDatabase);
      // Most runs are for one database, and need none of this.
      const { runFleetCommand } = await import('./fleet-command.ts');
      return runFleetCommand(command.name, databases, output, flags);
    },
  };
}

/** @throws {SettingsError} for an option of one database with many, and for one of many with one. */
function refuseMisplaced(name: string, { forFleets }: CommandOption, isFleet: boolean): void {
  if (forFleets === 'only' && !isFleet) {
    const message = `--${name} is for many databases. Give their list with --databases, or leave it out.`;
    throw new SettingsError(name, message);
  }
  if (!isFleet || forFleets === true || forFleets === 'only') return;
  const refusal = forFleets?.refusal ?? `--${name} is for one database. Leave it or --databases out.`;
  throw new SettingsError(name, refusal);
}
