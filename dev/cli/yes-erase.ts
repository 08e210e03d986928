import type { CommandOption } from '../../src/cli/define-command.ts';

/** Names a database that may be erased. The help explains it once, at `reset`. */
export const YES_ERASE_OPTION = { type: 'string', value: '<database>' } as const satisfies CommandOption;
