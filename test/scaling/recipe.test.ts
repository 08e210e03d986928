import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { PACKAGE_ROOT } from '../../src/package-root.ts';
import { databaseForFile } from '../support/databases/test-database.ts';
import { examplesOf, outcomeOf } from '../support/packages/examples.ts';
import { RECIPES, recipeOf } from './recipe.ts';

const database = databaseForFile();

test('every block of docs/scaling.md is in a recipe that a test carries out, or runs below', () => {
  const text = readFileSync(join(PACKAGE_ROOT, 'docs', 'scaling.md'), 'utf8');
  const others = text
    .split(/^#+ /m)
    .filter((section) => !RECIPES.some((recipe) => section.startsWith(`${recipe}\n`)))
    .flatMap((section) => section.match(/^```sql$/gm) ?? []);
  expect(text.match(/^ *```/gm)?.length).toBe(
    2 * (RECIPES.flatMap(recipeOf).length + others.length + text.split(/```(?:mermaid|sh)\n/).length - 1),
  );
});

test('every other statement of docs/scaling.md runs', async () => {
  const client = await database().connect();
  const queries = examplesOf('docs/scaling.md').filter(({ section }) => !RECIPES.includes(section));
  expect(queries.length).toBeGreaterThan(3);
  for (const { statement } of queries) {
    expect((await outcomeOf(client, statement)).join('\n'), statement).not.toMatch(/^ERROR/);
  }
});
