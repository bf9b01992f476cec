//! What `attune audit report` says, chapter by chapter, and the queries that fill it.

/// A chapter: its title, what it says, and the query that fills its table.
pub(super) struct Chapter {
    /// With the signs of its depth.
    pub(super) title: &'static str,
    pub(super) about: &'static str,
    pub(super) query: &'static str,
}

/// A part of the impact assessment.
pub(super) struct Part {
    pub(super) title: &'static str,
    pub(super) about: &'static str,
    pub(super) chapters: &'static [Chapter],
}

/// The record of processing activities.
pub(super) const RECORD: [Chapter; 9] = [
    Chapter {
        title: "## Data",
        about: "Tables, views and models, whose they are, and what they hold. Columns marked as \
                personal data are named; where none is marked, none was tagged. Rows are kept for \
                the retention, counted from the time in the column that it names (article 5 (1) \
                (e)); where none is told, nothing limits how long they are kept. Of views and \
                models it is what the tables beneath them have, each with its table.",
        query: "SELECT schema, name, kind, origin, owner, columns, personal, retention \
                FROM system.processing_activities ORDER BY schema, name",
    },
    Chapter {
        title: "## Purposes and policies",
        about: "The purposes for which each may be read, and the policies on it. A view or model \
                has those of the tables beneath it, and may be read for what all of them may be \
                read for. Where policies are empty, nothing limits the reading of whoever holds a \
                grant; where purposes are, none has to be stated.",
        query: "SELECT schema, name, kind, purposes, policies FROM system.processing_activities \
                ORDER BY schema, name",
    },
    Chapter {
        title: "## Sale and sharing",
        about: "Purposes that sell or share personal information, and the policies by which who says \
                \"do not sell or share\" is absent (California, CCPA §§ 1798.120 and 1798.135). \
                `exceptions`: how many are absent where the default is to allow, or there where it \
                is to deny; empty where it was not asked since the program started. A policy that \
                lists channels has a row for each, and one for what is read for all of them.",
        query: "SELECT p.name AS purpose, p.description, c.schema, c.\"table\", c.name AS policy, \
                c.channel, c.\"default\", c.exceptions, c.version FROM system.purposes p \
                LEFT JOIN system.consents c ON c.purpose = p.name WHERE p.sells_or_shares \
                ORDER BY p.name, c.schema, c.\"table\", c.name, c.channel",
    },
    Chapter {
        title: "## Sold or shared without a choice",
        about: "What was read for such a purpose and holds personal data, and has no consent policy \
                that names the purpose: nobody can opt out there.",
        query: "SELECT p.name AS purpose, a.schema, a.name, a.kind, a.personal, a.last_used \
                FROM system.purposes p JOIN system.processing_activities a \
                ON array_has(a.used_for, p.name) WHERE p.sells_or_shares \
                AND a.kind <> 'model' AND cardinality(a.personal) > 0 \
                AND NOT array_has(a.purposes, p.name) ORDER BY p.name, a.schema, a.name",
    },
    Chapter {
        title: "## Recipients",
        about: "Who may have what. Administrators read everything, owners what is theirs.",
        query: "SELECT schema, name, recipients FROM system.processing_activities \
                ORDER BY schema, name",
    },
    Chapter {
        title: "## Use",
        about: "What was done with each, as far back as the record goes: for which stated \
                purposes, by whom, how often, and when last.",
        query: "SELECT schema, name, used_for, used_by, reads, changes, last_used \
                FROM system.processing_activities ORDER BY schema, name",
    },
    Chapter {
        title: "## Models",
        about: "What learns from the data: profiling in the sense of article 4 (4) where its rows \
                are of persons. `purpose` is what it was trained for, `consent_version` what the \
                consents were known by then, and `withdrawn_users` how many of its users have \
                withdrawn since: RETRAIN forgets them.",
        query: "SELECT schema, name, model_type, owner, default_version, created, purpose, \
                consent_version, withdrawn_users, query FROM system.models ORDER BY schema, name",
    },
    Chapter {
        title: "## Users and roles",
        about: "Who can log in. `admin` manages users and reads everything; `policy_admin` manages \
                policies and keys.",
        query: "SELECT name, roles FROM system.users ORDER BY name",
    },
    Chapter {
        title: "## Accuracy",
        about: "What is expected of the data (article 5 (1) (d)).",
        query: "SELECT * FROM system.expectations",
    },
];

/// What stands in front of the assessment.
pub(super) const ASSESSMENT: &str = "
# Data protection impact assessment

In the four parts of article 35 (7), with the facts that the warehouse has. Lines that begin with
*To be written* are for the officer.
";

/// The assessment.
pub(super) const PARTS: [Part; 4] = [
    Part {
        title: "(a) Systematic description of the processing and its purposes",
        about: "What is processed, by whom and for whom is the record above. These are the purposes.\n\n\
                *To be written:* who the controller and its representatives are, the nature, scope \
                and context of the processing, and the legitimate interests that it serves.",
        chapters: &[Chapter {
            title: "### Purposes",
            about: "Each purpose, and what may be read and was read for it.",
            query: "SELECT p.name AS purpose, p.description, p.sells_or_shares, p.owner, \
                    array_agg(a.schema || '.' || a.name ORDER BY a.schema, a.name) \
                    FILTER (WHERE array_has(a.purposes, p.name)) AS may_be_read, \
                    array_agg(a.schema || '.' || a.name ORDER BY a.schema, a.name) \
                    FILTER (WHERE array_has(a.used_for, p.name)) AS was_read \
                    FROM system.purposes p LEFT JOIN system.processing_activities a ON true \
                    GROUP BY p.name, p.description, p.sells_or_shares, p.owner ORDER BY p.name",
        }],
    },
    Part {
        title: "(b) Necessity and proportionality",
        about: "*To be written:* why each purpose needs what is read for it, and could not do with less.",
        chapters: &[
            Chapter {
                title: "### Legal bases",
                about: "A purpose whose consent policies keep out who has not consented rests on \
                        consent. Another basis of article 6 is not known here.",
                query: "SELECT p.name AS purpose, CASE WHEN coalesce(bool_and(c.\"default\" = 'deny'), \
                        false) THEN 'consent, article 6 (1) (a)' ELSE 'to be written' END AS \
                        legal_basis, count(c.name) AS consent_policies FROM system.purposes p \
                        LEFT JOIN system.consents c ON c.purpose = p.name \
                        GROUP BY p.name ORDER BY p.name",
            },
            Chapter {
                title: "### How long rows are kept",
                about: "Of what holds personal data (article 5 (1) (e)).",
                query: "SELECT schema, name, kind, retention FROM system.processing_activities \
                        WHERE cardinality(personal) > 0 ORDER BY schema, name",
            },
        ],
    },
    Part {
        title: "(c) Risks to the rights and freedoms of persons",
        about: "What the warehouse knows of that may be a risk.\n\n*To be written:* how likely and how \
                severe each is, and what else threatens the persons concerned.",
        chapters: &[
            Chapter {
                title: "### Personal data without a policy",
                about: "Whoever holds a grant reads it as it is, for whatever purpose.",
                query: "SELECT schema, name, kind, personal, recipients \
                        FROM system.processing_activities WHERE cardinality(personal) > 0 \
                        AND coalesce(cardinality(policies), 0) = 0 ORDER BY schema, name",
            },
            Chapter {
                title: "### Personal data without an end",
                about: "No retention policy removes it.",
                query: "SELECT schema, name, kind, personal FROM system.processing_activities \
                        WHERE cardinality(personal) > 0 AND retention IS NULL \
                        AND kind = 'table' ORDER BY schema, name",
            },
            Chapter {
                title: "### Models that know who has withdrawn",
                about: "Until they are retrained.",
                query: "SELECT schema, name, purpose, consent_version, withdrawn_users \
                        FROM system.models WHERE withdrawn_users > 0 ORDER BY schema, name",
            },
            Chapter {
                title: "### Erasures that are not done, or left something",
                about: "Whom they are of is not on record.",
                query: "SELECT id, subject, state, started, remains FROM system.erasures \
                        WHERE state <> 'done' OR remains <> '' ORDER BY started, id",
            },
            Chapter {
                title: "### Refusals and failed logins",
                about: "Who was refused what, by day.",
                query: "SELECT date_trunc('day', at) AS day, event, principal, error_code, \
                        count(*) AS times FROM system.audit \
                        WHERE outcome = 'failed' AND (event = 'login' OR error_code = 'ATT-2003') \
                        GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4",
            },
        ],
    },
    Part {
        title: "(d) Measures",
        about: "What is done about the risks, beside purposes and policies above. What is a \
                subject's or an erasure's is shown to holders of `policy_admin`.\n\n\
                *To be written:* measures outside of the warehouse: encryption of stores and \
                backups, training, contracts.",
        chapters: &[
            Chapter {
                title: "### Pseudonyms and encryption",
                about: "Keys and their generations (article 32 (1) (a)); no secret is shown.",
                query: "SELECT name, source, generation, state, created, created_by \
                        FROM system.keys ORDER BY name, generation",
            },
            Chapter {
                title: "### Privacy budgets",
                about: "What noisy answers may tell of a person, and what was spent.",
                query: "SELECT * FROM system.privacy_budget",
            },
            Chapter {
                title: "### Retention",
                about: "What removes rows whose time is over.",
                query: "SELECT schema, \"table\", name, columns, keep, owner FROM system.policies \
                        WHERE keep IS NOT NULL ORDER BY schema, \"table\", name",
            },
            Chapter {
                title: "### Requests of persons",
                about: "Where persons are found, and how many ids are restricted, held or erased \
                        (articles 15 to 18).",
                query: "SELECT name, keys, crosswalk, copies, ids_restricted, ids_held, ids_erased \
                        FROM system.subjects ORDER BY name",
            },
            Chapter {
                title: "### Erasures",
                about: "Each with a certificate that a third party can check (article 17).",
                query: "SELECT id, subject, requested_by, finished, rows, is_valid, key \
                        FROM system.erasures WHERE state = 'done' ORDER BY finished, id",
            },
        ],
    },
];

/// What the report cannot know.
pub(super) const OPEN: &str = "\
## To be written

What this report cannot know beside what is marked above: transfers to third countries; processors
and their contracts; the advice of the data protection officer, and the views of the persons
concerned (article 35 (2) and (9)).
";
