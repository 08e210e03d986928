import type { ConnectionSettings } from '../settings/settings.ts';
import type { Output, StdoutKind } from './output.ts';

/**
 * An option of a command, in the form of node:util's parseArgs. All that is special about it is declared
 * here.
 */
export interface CommandOption {
  readonly type: 'boolean' | 'string';
  readonly short?: string;
  /** What the help shows for the value, such as `<text>`. */
  readonly value?: string;
  /** Its lines in the help. */
  readonly help: readonly string[] | string;
  /** Whether the help explains it once for all commands. */
  readonly isShared?: boolean;
  /** What stdout has with it, instead of lines for people. */
  readonly stdout?: StdoutKind;
  /**
   * True if fleet-command.ts reads it, so that it works with `--databases`; `only` if it works with nothing
   * else. Without either, it is refused there, with this text or a general one.
   */
  readonly forFleets?: true | 'only' | { readonly refusal: string };
}

type Options = Readonly<Record<string, CommandOption>>;

/** The values of a command's options: false or undefined for an option that was not given. */
export type FlagsOf<T extends Options> = {
  readonly [Name in keyof T]: T[Name]['type'] extends 'boolean' ? boolean : string | undefined;
};

/** The value of a command's word, by the name that the help shows for it. */
export type WordOf<Name extends string | undefined> = Name extends string
  ? Readonly<Record<Name, string>>
  : object;

/** The values of any command's options. */
export type Flags = Readonly<Record<string, boolean | string | undefined>>;

/** Runs `work` on the database of the command line. */
export type WithDatabase = (
  output: Output,
  work: (connection: ConnectionSettings) => Promise<number>,
) => Promise<number>;

/** A command of a command line. */
export interface Command {
  readonly name: string;
  /** Name of the word after the command, such as `mount`; undefined if it takes none. */
  readonly argument?: string | undefined;
  /** What it does, in one line of the help. */
  readonly summary: string;
  readonly options: Options;
  /** @returns the exit code of the process. */
  run(output: Output, flags: Flags, withDatabase: WithDatabase): Promise<number>;
}

export const JSON_OPTION = {
  type: 'boolean',
  help: 'one JSON document on stdout, everything else on stderr',
  isShared: true,
  stdout: 'json',
  forFleets: true,
} as const satisfies CommandOption;

export const ALLOW_AHEAD_OPTION = {
  type: 'boolean',
  help: 'exit with 0 if a later version has migrated the database',
  forFleets: true,
} as const satisfies CommandOption;

/** A command whose handler gets exactly the options that it declares. */
export function defineCommand<const T extends Options, const Name extends string | undefined = undefined>(
  command: Omit<Command, 'options' | 'run' | 'argument'> & {
    readonly argument?: Name;
    readonly options: T;
    run(output: Output, flags: FlagsOf<T> & WordOf<Name>, withDatabase: WithDatabase): Promise<number>;
  },
): Command {
  return {
    ...command,
    run: (output, flags, withDatabase) =>
      command.run(output, flags as FlagsOf<T> & WordOf<Name>, withDatabase),
  };
}
