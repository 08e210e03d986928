/**
 * Survivors that need no test, each by its id or, for a whole kind, by its name. "Equivalent": no statement can tell the
 * difference. "Performance only": plans and counted instructions catch it instead.
 */
export const EXPLAINED: Readonly<Record<string, string>> = {
  'planner setting left out': 'Performance only: test/schema/plans and bench compare plans and instructions.',
  'index dropped': 'Performance only: it is not unique.',
};
