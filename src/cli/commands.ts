import type { Command } from './command.ts';
import { migrate } from './migrate.ts';
import { status } from './status.ts';
import { verify } from './verify.ts';

/** The commands that work with what the package ships. */
export const COMMANDS: readonly Command[] = [migrate, status, verify];
