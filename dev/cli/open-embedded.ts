import type { Output } from '../../src/cli/output.ts';
import type { SettingsError } from '../../src/errors.ts';
import type { Embedded, EmbeddedOptions } from '../embedded/embedded.ts';

/** Texts for a command without a database URL. */
interface Absence {
  /** Such as `No database URL is set`. */
  readonly because: string;
  /** The error if the embedded Postgres may not be used. */
  readonly refusal: (reason: string) => SettingsError;
}

/**
 * Opens the embedded Postgres if no database URL is set.
 * @throws {SettingsError} with NODE_ENV=production, where a URL is required.
 */
export async function openEmbeddedInstead(
  output: Output,
  { because, refusal }: Absence,
  options?: EmbeddedOptions,
): Promise<Embedded> {
  if (process.env.NODE_ENV === 'production') {
    throw refusal('with NODE_ENV=production the embedded Postgres is not used.');
  }
  // Loaded on demand, because an installation without development dependencies does not have it.
  const { openEmbedded } = await import('../embedded/embedded.ts');
  output.say(`${because}: using the embedded Postgres.`);
  output.busy('starting it');
  return openEmbedded(options);
}
