//! The words that the demo's people, places and products are made of.

/// Given names.
pub(super) const GIVEN_NAMES: [&str; 48] = [
    "Aisha", "Alexander", "Amélie", "Ana", "Anders", "Benjamin", "Camille", "Carlos", "Catherine",
    "Chloé", "Christopher", "Daniel", "Elena", "Elisabeth", "Emma", "Fatima", "François",
    "Gabriel", "Giulia", "Hannah", "Hélène", "Ibrahim", "Ingrid", "Isabelle", "Jakob", "Jean",
    "Johanna", "José", "Julien", "Katarzyna", "Léa", "Liam", "Louise", "Luca", "Margaux", "Maria",
    "Mathieu", "Mohamed", "Nicolas", "Nora", "Oliver", "Pauline", "Philippe", "Rafael", "Sofia",
    "Stephanie", "Thomas", "Zoé",
];

/// Family names.
pub(super) const FAMILY_NAMES: [&str; 64] = [
    "Andersson", "Bernard", "Bianchi", "Blanc", "Bonnet", "Brown", "Chevalier", "Clark", "Costa",
    "Dubois", "Dupont", "Durand", "Fernández", "Ferrari", "Fischer", "Fontaine", "Fournier",
    "Garcia", "Garnier", "Gauthier", "Girard", "González", "Guérin", "Hansen", "Henry", "Hoffmann",
    "Jansen", "Johnson", "Keller", "Kowalski", "Lambert", "Laurent", "Lefebvre", "Legrand",
    "Lemaire", "Leroy", "Lopez", "Marchand", "Martin", "Mercier", "Meyer", "Moreau", "Morel",
    "Müller", "Nguyen", "Nielsen", "Novak", "O'Brien", "Pereira", "Perrin", "Petit", "Richard",
    "Robert", "Robinson", "Roussel", "Santos", "Schneider", "Silva", "Simon", "Smith", "Thompson",
    "Vasseur", "Weber", "Williams",
];

/// Hosts of e-mail addresses.
pub(super) const MAIL_HOSTS: [&str; 6] = [
    "gmail.com", "example.com", "example.org", "mail.example.net", "post.example", "outlook.com",
];

/// Departments: the two digits that French postcodes start with, and their main town.
pub(super) const TOWNS: [(&str, &str); 8] = [
    ("13", "Marseille"), ("31", "Toulouse"), ("33", "Bordeaux"), ("35", "Rennes"),
    ("44", "Nantes"), ("59", "Lille"), ("69", "Lyon"), ("75", "Paris"),
];

/// Categories with the kinds of things in them and a usual price in euros.
pub(super) const CATEGORIES: [(&str, [&str; 6], u32); 8] = [
    ("books", ["novel", "atlas", "cookbook", "biography", "comic", "poems"], 15),
    ("camping", ["tent", "stove", "lantern", "hammock", "cooler", "mat"], 60),
    ("cycling", ["helmet", "pump", "saddle", "bell", "lock", "jersey"], 45),
    ("garden", ["spade", "planter", "hose", "shears", "gloves", "seeds"], 25),
    ("kitchen", ["pan", "kettle", "knife", "grinder", "bowl", "apron"], 35),
    ("music", ["ukulele", "headphones", "stand", "tuner", "drum", "harmonica"], 80),
    ("running", ["shoes", "belt", "cap", "vest", "socks", "watch"], 70),
    ("toys", ["puzzle", "kite", "robot", "blocks", "marbles", "train"], 20),
];

/// What distinguishes two things of a kind.
pub(super) const ADJECTIVES: [&str; 16] = [
    "Alpine", "Amber", "Arctic", "Classic", "Copper", "Forest", "Granite", "Harbour", "Indigo",
    "Ivory", "Maple", "Nordic", "Ocean", "Solar", "Urban", "Velvet",
];

/// Incomes as a data broker sells them.
pub(super) const INCOMES: [&str; 4] = ["under 20k", "20k-40k", "40k-70k", "over 70k"];
