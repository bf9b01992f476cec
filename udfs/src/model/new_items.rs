//! Items that training did not know, solved from what users whom it knows have had of them.
//!
//! It is the half step that training does for an item, exactly and in `f64`: fold-in with the sides
//! exchanged, against the finished factors of the users who have interactions, with the options
//! that training came to. The users' factors stay as they are; a user who is folded in afterwards
//! is solved against all items, the new ones too.

use arrow::array::ArrayRef;
use rayon::prelude::*;

use super::als_model::{AlsModel, ModelParts};
use super::error::ModelError;
use super::foldin::{ItemSide, UserVector, add_product};
use super::recommender::Recommender;
use super::sparse::Csr;

/// Users whose products one task adds up.
const TASK_USERS: usize = 4_096;

impl AlsModel {
    /// Whether training had interactions of the user, so that a new item can be solved from the
    /// user's.
    pub fn has_learned_of(&self, user: u32) -> bool {
        self.is_live(user as usize)
    }

    /// Bytes that a model with so many more items takes while it is made, from so many cells.
    pub fn bytes_with(&self, items: usize, cells: usize) -> usize {
        let of_item = 4 * (self.num_factors() + 1) * size_of::<f32>() + 64;
        self.memory_bytes() + items * of_item + cells * 24
    }

    /// The model with more items: `cells` (items × the model's users, finite) has what users have
    /// had of each of the `ids`. Codes of known items stay, new ones come after them in the order
    /// of the ids. Runs on the current rayon pool.
    ///
    /// # Errors
    /// [`ModelError::Inconsistent`] when an id is known or repeated, or the cells are of another
    /// shape; [`ModelError::Null`] when an id is NULL in the type of the model's.
    pub fn with_items(&self, ids: &ArrayRef, cells: &Csr) -> Result<Self, ModelError> {
        let mut items = self.item_ids().clone();
        let known = items.len();
        let codes = items.encode(ids)?;
        let are_new = codes.len() == cells.rows() && items.len() == known + codes.len();
        if !are_new || cells.columns() != self.user_ids().len() {
            let why = "new items and what users have had of them do not fit together";
            return Err(ModelError::Inconsistent(why.to_owned()));
        }
        let side = self.user_side();
        let solve = |item: usize| {
            let (users, weights) = cells.row(item);
            side.fold_in(users, weights, None)
        };
        let solved: Vec<UserVector> = (0..cells.rows()).into_par_iter().map(solve).collect();
        let mut factors = self.factors().clone();
        let mut gram = self.item_side().gram.to_vec();
        for (item, vector) in solved.iter().enumerate() {
            factors.item_factors.extend_from_slice(&vector.factors);
            if !self.item_bias().is_empty() {
                factors.item_bias.push(vector.bias);
            }
            // As in training: an item without interactions is not there.
            if !cells.row(item).0.is_empty() {
                add_product(&mut gram, &vector.factors);
            }
        }
        let parts = ModelParts {
            users: self.user_ids().clone(),
            items,
            factors,
            seen: beside(self.seen(), &cells.transpose()),
            options: self.options().clone(),
        };
        Self::widened(parts, *self.resolved(), gram)
    }

    /// The finished user side, into which items are folded.
    pub(super) fn user_side(&self) -> ItemSide<'_> {
        let known = self.user_gram();
        let gram = match known.get() {
            Some(gram) => gram,
            None => {
                // Not within the lock: a thread that waits for others may take up work that asks
                // for the lock too.
                let gram = self.live_user_gram();
                known.get_or_init(|| gram)
            }
        };
        ItemSide {
            factors: self.user_factors(),
            bias: self.user_bias(),
            gram,
            others: (0..self.seen().rows()).filter(|&user| self.is_live(user)).count(),
            size: self.num_factors(),
            mean: self.global_mean(),
            feedback: self.feedback(),
            resolved: self.resolved(),
            non_negative: self.options().non_negative,
        }
    }

    fn is_live(&self, user: usize) -> bool {
        !self.seen().row(user).0.is_empty()
    }

    /// Of users without interactions, who have factors where features tell of them, the cells are
    /// not there. The same whatever the number of threads.
    fn live_user_gram(&self) -> Vec<f64> {
        let size = self.num_factors();
        let tasks = self.user_factors().par_chunks(TASK_USERS * size).enumerate();
        let parts: Vec<Vec<f64>> = tasks
            .map(|(task, rows)| {
                let mut gram = vec![0.0; size * size];
                for (user, row) in (task * TASK_USERS..).zip(rows.chunks_exact(size)) {
                    if self.is_live(user) {
                        add_product(&mut gram, row);
                    }
                }
                gram
            })
            .collect();
        let mut gram = vec![0.0; size * size];
        for part in parts {
            gram.iter_mut().zip(part).for_each(|(sum, value)| *sum += value);
        }
        gram
    }
}

/// Two matrices of as many rows side by side, the columns of the second after those of the first.
fn beside(first: &Csr, second: &Csr) -> Csr {
    let shift = first.columns() as u32;
    let lengths = (0..first.rows()).map(|row| first.row(row).0.len() + second.row(row).0.len());
    let count = first.columns() + second.columns();
    Csr::from_rows(lengths, count, |row, columns, values| {
        let ((before, weights), (after, more)) = (first.row(row), second.row(row));
        let (left, right) = columns.split_at_mut(before.len());
        left.copy_from_slice(before);
        right.iter_mut().zip(after).for_each(|(to, &column)| *to = shift + column);
        let (left, right) = values.split_at_mut(before.len());
        left.copy_from_slice(weights);
        right.copy_from_slice(more);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matrices_stand_side_by_side() {
        let first = Csr::new(vec![0, 2, 2], vec![0, 2], vec![1.0, 2.0], 3).unwrap();
        let second = Csr::new(vec![0, 1, 3], vec![1, 0, 1], vec![3.0, 4.0, 5.0], 2).unwrap();
        let both = Csr::new(vec![0, 3, 5], vec![0, 2, 4, 3, 4], vec![1.0, 2.0, 3.0, 4.0, 5.0], 5);
        assert_eq!(beside(&first, &second), both.unwrap());
    }
}
