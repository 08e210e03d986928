import { SettingsError } from '../errors.ts';
import type { Command, CommandOption } from './define-command.ts';

const FLEET_OPTIONS = {
  databases: {
    type: 'string',
    value: '<list>',
    help: [
      'many databases: a file, or env:VARIABLE, with a name and a URL (or the variable',
      'that holds it) on each line',
    ],
    isShared: true,
  },
  concurrency: {
    type: 'string',
    value: '<n>',
    help: 'how many of them at once, 8 by default',
    isShared: true,
  },
} as const satisfies Readonly<Record<string, CommandOption>>;

/** The command, which with `--databases` works on all databases of a list. */
export function withFleet(command: Command): Command {
  return {
    ...command,
    options: { ...command.options, ...FLEET_OPTIONS },
    async run(output, flags, withDatabase) {
      const { databases, concurrency } = flags;
      if (typeof databases !== 'string') {
        if (concurrency === undefined) return command.run(output, flags, withDatabase);
        throw new SettingsError(
          'concurrency',
          '--concurrency is for many databases. Give their list with --databases, or leave it out.',
        );
      }
      for (const [name, { forFleets }] of Object.entries(command.options)) {
        const isGiven = flags[name] !== undefined && flags[name] !== false;
        if (!isGiven || forFleets === true) continue;
        throw new SettingsError(
          name,
          forFleets ?? `--${name} is for one database. Leave it or --databases out.`,
        );
      }
      // Most runs are for one database, and need none of this.
      const { runFleetCommand } = await import('./fleet-command.ts');
      return runFleetCommand(command.name, databases, output, flags);
    },
  };
}
