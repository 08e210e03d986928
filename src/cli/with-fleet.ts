import { SettingsError } from '../errors.ts';
import type { Command, CommandOption } from './define-command.ts';

/** Without a help text each, since the help explains them once for all commands. */
const FLEET_OPTIONS = {
  databases: { type: 'string' },
  concurrency: { type: 'string' },
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
      // Most runs are for one database, and need none of this.
      const { runFleetCommand } = await import('./fleet-command.ts');
      return runFleetCommand(command.name, databases, output, flags);
    },
  };
}
