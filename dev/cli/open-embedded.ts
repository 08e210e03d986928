import type { Output } from '../../src/cli/output.ts';
import type { SettingsError } from '../../src/errors.ts';
import type { Embedded, EmbeddedOptions } from '../embedded/embedded.ts';

/** What a command says where no database is named. */
interface Absence {
  /** Such as `No database URL is set`. */
  readonly because: string;
  /** The error where the embedded Postgres may not stand in. */
  readonly refusal: (reason: string) => SettingsError;
}

/**
 * Opens the embedded Postgres in place of a database that nobody named.
 * @throws {SettingsError} with NODE_ENV=production: there, a URL was forgotten.
 */
export async function openEmbeddedInstead(
  output: Output,
  { because, refusal }: Absence,
  options?: EmbeddedOptions,
): Promise<Embedded> {
  if (process.env.NODE_ENV === 'production') {
    throw refusal('with NODE_ENV=production the embedded Postgres is not used.');
  }
  // Loaded when it is needed: an installation without development dependencies does not have it.
  const { openEmbedded } = await import('../embedded/embedded.ts');
  output.say(`${because}: using the embedded Postgres.`);
  output.busy('starting it');
  return openEmbedded(options);
}
