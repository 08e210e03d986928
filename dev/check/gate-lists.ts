import type { Sources } from '../sources/sources.ts';
import type { DatabaseSubject, Gate } from './gate.ts';
import { callerSettings } from './gates/caller-settings.ts';
import { chain } from './gates/chain.ts';
import { comments } from './gates/comments.ts';
import { concurrently } from './gates/concurrently.ts';
import { dataChecks } from './gates/data-checks.ts';
import { definitions } from './gates/definitions.ts';
import { fixtureTexts } from './gates/fixture-texts.ts';
import { foreignKeys } from './gates/foreign-keys.ts';
import { historyColumns } from './gates/history-columns.ts';
import { lint } from './gates/lint.ts';
import { placeholders } from './gates/placeholders.ts';
import { references } from './gates/references.ts';
import { released } from './gates/released.ts';
import { sessionSettings } from './gates/session-settings.ts';
import { sqlFiles } from './gates/sql-files.ts';

// To add a gate: write it in gates/, and add it to one of these lists. A gate that applies migrations itself is called in
// on-server.ts. The gate `current` has two forms: with `--current`, on-server.ts applies current.sql; otherwise
// check-migrations.ts requires that it is empty.

/** Gates that only read files. */
export const FILE_GATES: readonly Gate<Sources>[] = [
  ...[chain, released, lint, concurrently, dataChecks, sessionSettings, placeholders, fixtureTexts, sqlFiles],
];

/** Gates that read a database with all migrations applied. They run one after the other, since one of them locks objects. */
export const SCHEMA_GATES: readonly Gate<DatabaseSubject>[] = [
  ...[comments, foreignKeys, references, historyColumns, callerSettings, definitions],
];
