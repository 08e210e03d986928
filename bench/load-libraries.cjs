// What applying migrations takes before the first statement: Node.js with pg and graphile-migrate.
require('pg');
require('graphile-migrate');
