import { randomUUID } from 'node:crypto';
import { styleText } from 'node:util';
import type { Environment } from '../settings/settings.ts';
import { isSet } from '../settings/settings.ts';
import { printable } from '../text.ts';

const ESCAPE = '\u001b';
/** In place of the escape character until a line is written. Random, so that no other text can have it. */
const MARK = randomUUID();

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
  return { good: mark('green'), bad: mark(['red', 'bold']), odd: mark('yellow'), faint: mark('gray') };
}

/** Spaces before the text stay in front, because they show where a line of a longer text begins. */
function mark(style: Parameters<typeof styleText>[0]): (text: string) => string {
  const paint = (text: string) =>
    styleText(style, printable(text), { validateStream: false }).replaceAll(ESCAPE, MARK);
  return (text) => text.replace(/\S.*/s, paint);
}

/** A line with the escape sequences of its styles. */
export function showPaint(line: string): string {
  return line.replaceAll(MARK, ESCAPE);
}
