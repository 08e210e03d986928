import { parseArgs } from 'node:util';
import { codeOf } from '../cause-codes.ts';
import { type Environment, isSet } from '../settings/settings.ts';
import { isQuotable, messageOfError } from '../text.ts';
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
}

function namesOf(name: string, { short, value }: CommandOption): string {
  return `${short === undefined ? '' : `-${short}, `}--${name}${value === undefined ? '' : ` ${value}`}`;
}

/** Reads the command line. An unknown argument is an error. */
export function readArguments(
  args: readonly string[],
  commands: readonly Command[],
  env: Environment = process.env,
): Arguments {
  let parsed: ReturnType<typeof parse>;
  try {
    parsed = parse(args, commands);
  } catch (error) {
    const isSecret =
      codeOf(error) === 'ERR_PARSE_ARGS_UNKNOWN_OPTION' &&
      args.some((arg) => arg.startsWith('-') && !isQuotable(arg.replace(/=.*/s, '')));
    if (isSecret) return { type: 'wrong', why: 'An option is unknown. It is not shown here.' };
    return { type: 'wrong', why: messageOfError(error) };
  }
  const { values, positionals, tokens } = parsed;
  if (values.help) return { type: 'help' };
  const given = tokens.flatMap((token) =>
    token.kind === 'option' && token.value !== undefined ? token.name : [],
  );
  const repeated = given.find((option, index) => given.indexOf(option) !== index);
  if (repeated !== undefined) return { type: 'wrong', why: `--${repeated} was given twice. Give it once.` };
  const [name, ...rest] = positionals;
  if (name === undefined) return { type: 'wrong', why: 'No command was given.' };
  const command = commands.find((candidate) => candidate.name === name);
  if (command === undefined) {
    const called = isQuotable(name) ? `"${name}"` : 'of that name, which is not shown here';
    return { type: 'wrong', why: `There is no command ${called}.` };
  }
  const words = command.argument === undefined ? [] : [command.argument];
  // Not quoted: it may be a pasted password.
  if (rest.length > words.length) {
    const which = words.length === 0 ? 'other' : 'second';
    return { type: 'wrong', why: `${name} takes no ${which} word. The given one is not shown here.` };
  }
  if (rest.length < words.length) return { type: 'wrong', why: `${name} needs the key of a ${words[0]}.` };
  const unknown = Object.keys(values).find((option) => !Object.hasOwn(command.options, option));
  if (unknown !== undefined) return { type: 'wrong', why: `${name} has no option --${unknown}.` };
  const swallowed = Object.keys(command.options).find(
    (option) => !Object.hasOwn(values, option) && isSwallowed(option, env),
  );
  if (swallowed !== undefined) {
    return {
      type: 'wrong',
      why: `npm took --${swallowed} for itself. Write -- before it: npm run <script> -- --${swallowed}.`,
    };
  }
  const wordsByName = Object.fromEntries(words.map((word, index) => [word, rest[index]]));
  return { type: 'command', command, flags: { ...flagsOf(command, values), ...wordsByName } };
}

/** Whether npm took an option of `npm run` without `--`. It passes its own settings on as variables. */
function isSwallowed(option: string, env: Environment): boolean {
  const value = env[`npm_config_${option.replaceAll('-', '_')}`];
  return isSet(value) && value !== 'false';
}

function parse(args: readonly string[], commands: readonly Command[]) {
  const options: Readonly<Record<string, Pick<CommandOption, 'type' | 'short'>>> = Object.assign(
    { help: { type: 'boolean', short: 'h' } },
    ...commands.map((command) => command.options),
  );
  return parseArgs({ args: [...args], allowPositionals: true, tokens: true, options });
}

function flagsOf({ options }: Command, values: ReturnType<typeof parse>['values']): Flags {
  return Object.fromEntries(
    Object.entries(options).map(([name, { type }]) => {
      const value = values[name];
      if (type === 'boolean') return [name, value === true];
      return [name, typeof value === 'string' ? value : undefined];
    }),
  );
}
