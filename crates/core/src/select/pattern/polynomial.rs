//! Polynomials in an activation's input x and its transcendental part t.

/// Highest power of x.
const X: usize = 4;
/// Highest power of t, plus one.
const T: usize = 2;

/// A term of a formula: power of x, power of t, coefficient.
pub type Term = (usize, usize, f64);

/// Coefficients by power of x (up to 3) and of t (up to 1).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Polynomial([[f64; T]; X]);

impl Polynomial {
    pub fn term(x: usize, t: usize, coefficient: f64) -> Self {
        let mut p = Polynomial::default();
        p.0[x][t] = coefficient;
        p
    }

    /// The coefficient of xⁱtʲ.
    pub fn at(&self, x: usize, t: usize) -> f64 {
        self.0[x][t]
    }

    /// The value, when it is a constant.
    pub fn constant(&self) -> Option<f64> {
        (*self == Self::term(0, 0, self.at(0, 0))).then_some(self.at(0, 0))
    }

    pub fn plus(&self, other: &Self, sign: f64) -> Self {
        let mut sum = *self;
        for (row, others) in sum.0.iter_mut().zip(&other.0) {
            for (c, o) in row.iter_mut().zip(others) {
                *c += sign * o;
            }
        }
        sum
    }

    pub fn times(&self, other: &Self) -> Option<Self> {
        let mut product = Polynomial::default();
        for (i, j, a) in self.terms() {
            for (k, l, b) in other.terms() {
                *product.0.get_mut(i + k)?.get_mut(j + l)? += a * b;
            }
        }
        Some(product)
    }

    pub fn terms(&self) -> impl Iterator<Item = Term> + '_ {
        let row = |(i, row): (usize, &[f64; T])| (0..T).map(move |j| (i, j)).zip(*row);
        self.0.iter().enumerate().flat_map(row).filter(|(_, c)| *c != 0.0).map(|((i, j), c)| (i, j, c))
    }

    /// Whether it has these terms and no other, to a relative tolerance.
    pub fn is(&self, formula: &[Term], tolerance: f64) -> bool {
        let wanted = |i, j| formula.iter().find(|t| (t.0, t.1) == (i, j)).map_or(0.0, |t| t.2);
        (0..X).all(|i| (0..T).all(|j| near(self.0[i][j], wanted(i, j), tolerance)))
    }
}

/// How near misses print it.
impl std::fmt::Display for Polynomial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (k, (i, j, c)) in self.terms().enumerate() {
            let power = ["", "·x", "·x²", "·x³"].get(i).copied().unwrap_or("·…");
            let sign = if k > 0 { " + " } else { "" };
            write!(f, "{sign}{c:.6}{power}{}", if j == 1 { "·t" } else { "" })?;
        }
        Ok(())
    }
}

/// Whether two numbers agree to a relative tolerance; 0 is met by 0 alone, up to the rounding of sums.
pub fn near(value: f64, wanted: f64, tolerance: f64) -> bool {
    (value - wanted).abs() <= tolerance * wanted.abs() + 1e-12
}
