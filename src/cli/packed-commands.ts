// Before the commands, which load pg.
import '../node-20.mjs';
import type { Command } from './define-command.ts';
import { migrate } from './migrate.ts';
import { move } from './move.ts';
import { status } from './status.ts';
import { verify } from './verify.ts';
import { STOP_OPTIONS, withFleet } from './with-fleet.ts';

/** The commands of the packed package. */
export const PACKED_COMMANDS: readonly Command[] = [
  withFleet(migrate, STOP_OPTIONS),
  withFleet(status),
  withFleet(verify),
  move,
];
