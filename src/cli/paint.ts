import { styleText } from 'node:util';
import type { Environment } from '../settings/settings.ts';
import { isSet } from '../settings/settings.ts';

/** Styles by meaning. */
export interface Paint {
  good(text: string): string;
  bad(text: string): string;
  /** Something to check. */
  odd(text: string): string;
  /** Less important text. */
  faint(text: string): string;
}

/**
 * Colours on a terminal, unless it has none (TERM=dumb) or the user disables them (NO_COLOR,
 * https://no-color.org).
 */
export function paintFor(terminal: boolean, env: Environment): Paint {
  if (!terminal || isSet(env.NO_COLOR) || env.TERM === 'dumb') {
    const plain = (text: string) => text;
    return { good: plain, bad: plain, odd: plain, faint: plain };
  }
  return {
    good: (text) => styleText('green', text),
    bad: (text) => styleText(['red', 'bold'], text),
    odd: (text) => styleText('yellow', text),
    faint: (text) => styleText('gray', text),
  };
}
