//! The demo's shop: people who are known twice under different spellings, what they looked at and
//! bought, and the answer key that says who is who.
//!
//! People have two favourite categories; what they look at follows them nine times in ten, so that
//! there is something to learn. One record in six has a slip in the name, one web account in four
//! another e-mail address than the customer has in the CRM: those are found by name only.

use super::random::Random;
use super::words::{ADJECTIVES, CATEGORIES, FAMILY_NAMES, GIVEN_NAMES, INCOMES, MAIL_HOSTS, TOWNS};

/// People at scale 1; all else follows from it.
const PEOPLE: usize = 2_000;

/// Days of clickstream, from [`FIRST_DAY`] on.
pub(super) const DAYS: usize = 30;

/// 2026-01-01, in days since 1970-01-01.
pub(super) const FIRST_DAY: i32 = 20_454;

/// Orders are looked at over this many days before the clickstream ends.
const ORDER_DAYS: usize = 180;

/// Microseconds of a day.
const DAY_US: i64 = 86_400_000_000;

/// Everything the lake holds.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Shop {
    /// Records of the CRM.
    pub(super) crm: Vec<Record>,
    /// Accounts of the web shop.
    pub(super) web: Vec<Record>,
    /// Who each record really is: record id and person.
    pub(super) answer_key: Vec<(String, usize)>,
    /// What is sold.
    pub(super) products: Vec<Product>,
    /// What was looked at, by day.
    pub(super) clicks: Vec<Vec<Click>>,
    /// What was bought.
    pub(super) orders: Vec<Order>,
    /// What a data broker knows.
    pub(super) attributes: Vec<Attribute>,
}

/// One record of a person, as somebody typed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) email: String,
    pub(super) phone: String,
    pub(super) city: &'static str,
    pub(super) postcode: String,
    pub(super) birth_year: i64,
    pub(super) gender: &'static str,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Product {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) category: &'static str,
    pub(super) price: f64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Click {
    pub(super) account: String,
    pub(super) product: usize,
    pub(super) event: &'static str,
    pub(super) time_us: i64,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Order {
    pub(super) customer: String,
    pub(super) product: usize,
    pub(super) quantity: i64,
    pub(super) time_us: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attribute {
    pub(super) email: String,
    pub(super) income: &'static str,
    pub(super) interest: &'static str,
}

/// A person, who never stands in the lake but in records of it.
struct Person {
    given: &'static str,
    family: &'static str,
    email: String,
    phone: String,
    town: (&'static str, &'static str),
    postcode: String,
    birth_year: i64,
    gender: &'static str,
    tastes: [usize; 2],
}

impl Shop {
    /// The shop of a seed. The same seed and scale give the same shop, byte for byte.
    pub(super) fn generate(seed: u64, scale: usize) -> Self {
        let mut random = Random::new(seed);
        let count = PEOPLE * scale.max(1);
        let mut shop = Self {
            crm: Vec::new(),
            web: Vec::new(),
            answer_key: Vec::new(),
            products: products(&mut random),
            clicks: vec![Vec::new(); DAYS],
            orders: Vec::new(),
            attributes: Vec::new(),
        };
        for number in 0..count {
            let person = Person::new(&mut random, number, scale);
            shop.add(&mut random, number, &person);
        }
        for day in &mut shop.clicks {
            day.sort_by_key(|click| click.time_us);
        }
        shop.orders.sort_by_key(|order| order.time_us);
        shop
    }

    fn add(&mut self, random: &mut Random, number: usize, person: &Person) {
        let in_crm = random.chance(0.85);
        let on_web = !in_crm || random.chance(0.8);
        if in_crm {
            let id = format!("C{:05}", self.crm.len() + 1);
            self.answer_key.push((id.clone(), number));
            let record = person.record(random, &id, person.email.clone(), 0.1);
            self.crm.push(record);
            self.buy(random, &id, person);
            if random.chance(0.04) {
                // Entered twice at the till, where nobody asked for the e-mail address again.
                let id = format!("C{:05}", self.crm.len() + 1);
                self.answer_key.push((id.clone(), number));
                let email = other_email(person);
                self.crm.push(person.record(random, &id, email, 0.8));
            }
        }
        if on_web {
            let id = format!("W{:05}", self.web.len() + 1);
            self.answer_key.push((id.clone(), number));
            let email = match random.chance(0.25) {
                true => other_email(person),
                false => respelled(random, &person.email),
            };
            self.web.push(person.record(random, &id, email, 0.25));
            self.browse(random, &id, person);
        }
        if random.chance(0.6) {
            self.attributes.push(Attribute {
                email: respelled(random, &person.email),
                income: random.pick(&INCOMES),
                interest: CATEGORIES.get(person.tastes[0]).map_or("", |category| category.0),
            });
        }
    }

    fn browse(&mut self, random: &mut Random, account: &str, person: &Person) {
        for _ in 0..12 + random.below(45) {
            let day = random.below(DAYS);
            let time = (random.unit() * DAY_US as f64) as i64;
            let click = Click {
                account: account.to_owned(),
                product: self.choose(random, person),
                event: if random.chance(0.12) { "cart" } else { "view" },
                time_us: (i64::from(FIRST_DAY) + day as i64) * DAY_US + time,
            };
            if let Some(clicks) = self.clicks.get_mut(day) {
                clicks.push(click);
            }
        }
    }

    fn buy(&mut self, random: &mut Random, customer: &str, person: &Person) {
        let first = i64::from(FIRST_DAY) + DAYS as i64 - ORDER_DAYS as i64;
        for _ in 0..random.skewed(12) {
            let time = random.unit() * ORDER_DAYS as f64 * DAY_US as f64;
            self.orders.push(Order {
                customer: customer.to_owned(),
                product: self.choose(random, person),
                quantity: 1 + random.skewed(3) as i64,
                time_us: first * DAY_US + time as i64,
            });
        }
    }

    /// A product the person would look at.
    fn choose(&self, random: &mut Random, person: &Person) -> usize {
        let per_category = self.products.len() / CATEGORIES.len();
        let category = match random.unit() {
            part if part < 0.6 => person.tastes[0],
            part if part < 0.9 => person.tastes[1],
            _ => random.below(CATEGORIES.len()),
        };
        category * per_category + random.skewed(per_category)
    }
}

impl Person {
    fn new(random: &mut Random, number: usize, scale: usize) -> Self {
        let given = random.pick(&GIVEN_NAMES);
        let family = random.pick(&FAMILY_NAMES);
        let host = random.pick(&MAIL_HOSTS);
        let local = format!("{}.{}{}", plain(given), plain(family), number);
        let town = TOWNS.get(random.skewed(TOWNS.len())).copied().unwrap_or(("75", "Paris"));
        // About ten records share a postcode, whatever the scale: the blocking key of the recipe.
        let district = random.below((50 * scale).min(999));
        let first_taste = random.skewed(CATEGORIES.len());
        Self {
            given,
            family,
            email: format!("{local}@{host}"),
            phone: format!("06{:08}", random.below(100_000_000)),
            town,
            postcode: format!("{}{district:03}", town.0),
            birth_year: 1945 + random.below(62) as i64,
            gender: random.pick(&["f", "m"]),
            tastes: [first_taste, random.below(CATEGORIES.len())],
        }
    }

    /// A record of the person, with a slip in the name at the given probability.
    fn record(&self, random: &mut Random, id: &str, email: String, slip: f64) -> Record {
        let mut name = format!("{} {}", self.given, self.family);
        if random.chance(slip) {
            name = mistyped(random, &name);
        }
        let digits = self.phone.get(1..).unwrap_or_default();
        let phone = match random.below(3) {
            0 => self.phone.clone(),
            1 => format!("+33 {digits}"),
            _ => {
                let pairs = self.phone.as_bytes().chunks(2);
                let pairs: Vec<_> = pairs.map(String::from_utf8_lossy).collect();
                pairs.join(" ")
            }
        };
        Record {
            id: id.to_owned(),
            name,
            email,
            phone,
            city: self.town.1,
            postcode: self.postcode.clone(),
            birth_year: self.birth_year,
            gender: self.gender,
        }
    }
}

fn products(random: &mut Random) -> Vec<Product> {
    let mut products = Vec::new();
    for (category, kinds, price) in CATEGORIES {
        for (kind, adjective) in
            kinds.iter().flat_map(|kind| ADJECTIVES.map(move |word| (kind, word)))
        {
            let cents = f64::from(price) * (0.4 + 1.6 * random.unit()) * 100.0;
            products.push(Product {
                id: format!("P{:04}", products.len() + 1),
                name: format!("{adjective} {kind}"),
                category,
                price: cents.round() / 100.0,
            });
        }
    }
    products
}

/// Another address of the same person.
fn other_email(person: &Person) -> String {
    format!("{}_{}@other.example", plain(person.family), person.birth_year)
}

/// The same address as another form would have it: capitals, spaces, a tag.
fn respelled(random: &mut Random, email: &str) -> String {
    match random.below(4) {
        0 => email.to_uppercase(),
        1 => format!(" {email} "),
        2 if email.ends_with("@gmail.com") => email.replacen('@', "+shop@", 1),
        _ => email.to_owned(),
    }
}

/// A name with one slip: two letters swapped, one left out, one doubled.
fn mistyped(random: &mut Random, name: &str) -> String {
    let mut letters: Vec<char> = name.chars().collect();
    // The first letters of a name are seldom wrong.
    let position = 2 + random.below(letters.len().saturating_sub(4));
    match (random.below(3), letters.get(position).copied()) {
        (0, Some(_)) if position + 1 < letters.len() => letters.swap(position, position + 1),
        (1, Some(_)) => drop(letters.remove(position)),
        (_, Some(letter)) => letters.insert(position, letter),
        (_, None) => {}
    }
    letters.into_iter().collect()
}

/// A name in the letters of an e-mail address.
fn plain(name: &str) -> String {
    let ascii = |c: char| match c {
        'á' | 'à' => 'a',
        'é' | 'è' | 'ê' => 'e',
        'ç' => 'c',
        'ó' | 'ö' => 'o',
        'ü' => 'u',
        other => other,
    };
    name.to_lowercase().chars().map(ascii).filter(char::is_ascii_alphanumeric).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_shop() {
        assert_eq!(Shop::generate(7, 1), Shop::generate(7, 1));
        assert_ne!(Shop::generate(7, 1).web, Shop::generate(8, 1).web);
    }

    #[test]
    fn the_shop_has_the_size_that_the_help_promises() {
        let shop = Shop::generate(42, 1);
        let clicks: usize = shop.clicks.iter().map(Vec::len).sum();
        assert!((1_600..2_000).contains(&shop.crm.len()), "{}", shop.crm.len());
        assert!((45_000..75_000).contains(&clicks), "{clicks}");
        assert!(shop.clicks.iter().all(|day| !day.is_empty()));
        assert!(Shop::generate(42, 2).web.len() > shop.web.len());
    }

    #[test]
    fn every_record_is_in_the_answer_key() {
        let shop = Shop::generate(42, 1);
        assert_eq!(shop.answer_key.len(), shop.crm.len() + shop.web.len());
    }

    #[test]
    fn customer_42_exists_and_buys() {
        let shop = Shop::generate(42, 1);
        assert!(shop.orders.iter().any(|order| order.customer == "C00042"));
    }

    #[test]
    fn a_slip_changes_little() {
        let mut random = Random::new(3);
        for name in ["Al", "", "Hélène Dupont", "Zoé O'Brien"] {
            let typed = mistyped(&mut random, name);
            assert!(typed.chars().count().abs_diff(name.chars().count()) <= 1);
        }
    }

    #[test]
    fn addresses_are_ascii() {
        assert_eq!(plain("Hélène O'Brien"), "heleneobrien");
        assert!(Shop::generate(1, 1).crm.iter().all(|record| record.email.is_ascii()));
    }
}
