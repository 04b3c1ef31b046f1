//! Macros that make an enum of bases or policies, and the table of their kinds, from a line per member.

/// Defines the enum, the table, the type of its places (a kind), and `each!`, which evaluates an expression with any member.
macro_rules! kinds {
    (
        $d:tt
        $(#[$attribute:meta])* $enum:ident, $kind:ident, $row:ident, $section:literal;
        $($variant:ident($module:ident::$type:ident): $doc:literal,)*
    ) => {
        $(pub use $module::*;)*

        $(#[$attribute])*
        #[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
        #[serde(tag = "type", rename_all = "snake_case")]
        #[non_exhaustive]
        pub enum $enum {
            $(#[doc = $doc] $variant($type),)*
        }

        $(impl From<$type> for $enum {
            fn from(member: $type) -> Self {
                Self::$variant(member)
            }
        })*

        /// The table of kinds: the rows of all members.
        static TABLE: std::sync::LazyLock<Vec<$row>> = std::sync::LazyLock::new(|| [$($type::ROWS),*].concat());

        impl $enum {
            /// Each member, with its defaults.
            pub(crate) fn members() -> impl Iterator<Item = Self> {
                [$(Self::from($type::default())),*].into_iter()
            }

            /// The name of its type in JSON.
            pub(crate) fn type_name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $type::ROWS[0].name,)*
                }
            }

            /// Reads a section of a recipe: the `type`, and the fields of that member.
            pub(crate) fn read(section: serde_json::Value) -> Result<Self, crate::error::Error> {
                let names = [$($type::ROWS[0].name),*];
                let (index, fields) = crate::recipe::json::typed($section, section, &names)?;
                let read: [fn(_) -> _; _] = [$(|fields| crate::recipe::json::section($section, fields).map(Self::$variant)),*];
                read[index](fields)
            }
        }

        /// The place of a row in the table of kinds. Settings that need no other kernels do not matter here.
        #[doc(hidden)]
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
        pub struct $kind(u8);

        impl std::fmt::Debug for $kind {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.row().name)
            }
        }

        impl $kind {
            /// Every kind, in order.
            pub fn all() -> impl Iterator<Item = Self> {
                (0..TABLE.len() as u8).map(Self)
            }

            /// The kind of a row of the table.
            fn at(row: &$row) -> Self {
                Self::all().find(|kind| kind.row() == row).expect("the table has the rows of all members")
            }

            /// The row in the table of kinds.
            pub fn row(self) -> &'static $row {
                &TABLE[self.0 as usize]
            }
        }

        macro_rules! each {
            ($d self:expr, $d member:ident => $d value:expr) => {
                match $d self {
                    $($enum::$variant($d member) => $d value,)*
                }
            };
        }
    };
}

pub(crate) use kinds;
