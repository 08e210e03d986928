import type { SchemaCheck } from '../catalog/drift.ts';
import type { CommittedMigration } from '../graphile/committed-migrations.ts';
import { typedCommand } from '../package-root.ts';
import { describeHolders } from '../session/lock-holder.ts';
import type { Session } from '../session/session.ts';
import { paragraph } from '../text.ts';
import { refuseDiverged, whyNotComparable } from './plan.ts';
import { type Survey, survey } from './survey.ts';

/** Compares the schema of a database that was surveyed in the same session. */
export async function compareSurveyed(
  found: Survey,
  session: Session,
  committed: readonly CommittedMigration[],
): Promise<SchemaCheck> {
  refuseDiverged(found);
  const reason = whyNotComparable(found.plan);
  if (reason !== undefined) return { state: 'unchecked', reason };
  const { checkSchemaAndRights } = await import('../catalog/drift.ts');
  const check = await checkSchemaAndRights(session, committed);
  if (check.state !== 'drifted') return check;
  // A run of a later version may have begun after the survey. It is no manual change.
  const whyNot = whyNoDrift(await survey(session, committed));
  return whyNot === undefined ? check : { state: 'unchecked', reason: whyNot };
}

/** Why a difference may be that of a migration; undefined if it cannot be one. */
function whyNoDrift({ plan, migrators }: Survey): string | undefined {
  if (migrators.length === 0) return whyNotComparable(plan);
  return paragraph(
    `It differs while migrations are applied by ${describeHolders(migrators)}.`,
    `Run ${typedCommand('verify')} again when that has ended.`,
  );
}
