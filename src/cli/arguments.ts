import { parseArgs } from 'node:util';
import type { Command, CommandOption, Flags } from './define-command.ts';

/** A command line: its commands and their database. */
export interface CommandLine {
  readonly commands: readonly Command[];
  /** The paragraph of the help that says which database is used. */
  readonly databaseHelp: string;
}

export type Arguments =
  | { readonly type: 'help' }
  | { readonly type: 'wrong'; readonly why: string }
  | { readonly type: 'command'; readonly command: Command; readonly flags: Flags };

const NAME_WIDTH = 8;
const OPTION_WIDTH = 13;
const SHARED_WIDTH = 22;

/** The help for the whole command line. */
export function usageOf({ commands, databaseHelp }: CommandLine): string {
  return `Usage: filestore-db <command> [options]

Commands:
${commands.flatMap(helpOf).join('\n')}

${describeShared(commands).join('\n')}

${databaseHelp}

Exit codes: 0 done; 1 failed; 2 wrong usage or settings; 3 migrations pending (status);
4 history diverged, database ahead, or schema drifted; 5 gave up waiting for the lock.
`;
}

/** The options that several commands have, with the names of these commands. */
function describeShared(commands: readonly Command[]): readonly string[] {
  const shared = new Map(
    commands.flatMap(({ options }) => Object.entries(options).filter(([, { isShared }]) => isShared)),
  );
  return [...shared].flatMap(([name, option]) => {
    const having = commands.filter(({ options }) => name in options).map((command) => command.name);
    const [first = '', ...rest] = [option.help].flat();
    const text = [first, ...rest].join(`\n${' '.repeat(SHARED_WIDTH + 4)}`);
    return `  ${namesOf(name, option).padEnd(SHARED_WIDTH)}  ${text} (${having.join(', ')})`;
  });
}

function helpOf({ name, argument, summary, options }: Command): readonly string[] {
  const lines = Object.entries(options).flatMap(([name, option]) =>
    option.isShared
      ? []
      : [`${' '.repeat(NAME_WIDTH + 4)}${namesOf(name, option).padEnd(OPTION_WIDTH)}  ${option.help}`],
  );
  const called = argument === undefined ? name : `${name} <${argument}>`;
  return [`  ${called.padEnd(NAME_WIDTH)}  ${summary}`, ...lines];
