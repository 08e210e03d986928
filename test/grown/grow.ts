import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { seconds } from '../../src/text.ts';
import { committedMigrations } from '../support/packages/committed-files.ts';
import type { Change } from './changes.ts';
import type { Checkout } from './checkout.ts';

/** Commits a change of the schema in a checkout, as the README describes. */
export async function grow(checkout: Checkout, { title, migrations }: Change): Promise<void> {
  console.log(`Change: ${title}`);
  for (const { message, write } of migrations) {
    const text = write(checkout.folder);
    writeFileSync(join(checkout.folder, 'migrations', 'current.sql'), text);
    await commitCurrent(checkout, message);
  }
  await runStep(checkout, 'db:docs');
  await runStep(checkout, 'db:check');
  await checkout.record(title);
}

/** Commits what is in current.sql and in the fixtures. */
export async function commitCurrent(checkout: Checkout, message: string): Promise<void> {
  const startedAt = performance.now();
  await checkout.run(['npm', 'run', 'db:commit', '--', '-m', message]);
  const filename = committedMigrations(checkout.folder).at(-1);
  console.log(`  db:commit made ${filename} (${seconds(performance.now() - startedAt)})`);
}

/** Runs a command of the workflow that follows the commits. */
export async function runStep(checkout: Checkout, command: 'db:docs' | 'db:check'): Promise<void> {
  const startedAt = performance.now();
  await checkout.run(['npm', 'run', command]);
  console.log(`  ${command} passed (${seconds(performance.now() - startedAt)})`);
}
