//! Macros that make an enum of bases or policies, and the table of their kinds, from a line per member.

/// Defines the enum, the table, the type of its places (a kind), and `each!`, which evaluates an expression with any member.
macro_rules! kinds {
    (
        $d:tt
        $(#[$attribute:meta])* $enum:ident, $kind:ident, $row:ident, $section:literal, $custom:ident: $custom_doc:literal;
        $($variant:ident($module:ident::$type:ident): $doc:literal,)*
    ) => {
        $(pub use $module::*;)*

        $(#[$attribute])*
        #[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
        #[serde(tag = "type", rename_all = "snake_case")]
        #[non_exhaustive]
        pub enum $enum {
            $(#[doc = $doc] $variant($type),)*
            #[doc = $custom_doc]
            Custom($custom),
        }

        impl From<$custom> for $enum {
            fn from(member: $custom) -> Self {
                Self::Custom(member)
            }
        }

        $(impl From<$type> for $enum {
            fn from(member: $type) -> Self {
                Self::$variant(member)
            }
        })*

        /// The table of kinds: the rows of all members.
        static TABLE: std::sync::LazyLock<Vec<$row>> = std::sync::LazyLock::new(|| [$($type::ROWS),*].concat());

        /// Rows of custom members, in the order of their first use. Their kinds follow those of `TABLE`.
        static CUSTOM: std::sync::RwLock<Vec<&'static $row>> = std::sync::RwLock::new(Vec::new());

        impl $enum {
            /// Every built-in member, with its defaults.
            pub(crate) fn members() -> impl Iterator<Item = Self> {
                [$(Self::from($type::default())),*].into_iter()
            }

            /// The name of its type in JSON. For a custom member, the name that its text declares.
            pub(crate) fn type_name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $type::ROWS[0].name,)*
                    Self::Custom(member) => member.name(),
                }
            }

            /// The custom member, or `None` for a built-in one.
            pub(crate) fn custom(&self) -> Option<$custom> {
                if let Self::Custom(member) = self { Some(*member) } else { None }
            }

            /// Reads a section of a recipe: the `type`, and the fields of that member.
            pub(crate) fn read(section: serde_json::Value) -> Result<Self, crate::error::Error> {
                let names = [$($type::ROWS[0].name,)* "custom"];
                let (index, fields) = crate::recipe::json::typed($section, section, &names)?;
                let read: [fn(_) -> _; _] = [$(|fields| crate::recipe::json::section($section, fields).map(Self::$variant),)*
                    |fields| $custom::read(fields).map(Self::Custom)];
                read[index](fields)
            }
        }

        /// The place of a row in the table of kinds. Settings that need no other kernels do not matter here.
        #[doc(hidden)]
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
        pub struct $kind(u32);

        impl std::fmt::Debug for $kind {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.row().name)
            }
        }

        impl $kind {
            /// Every built-in kind, in order.
            pub fn all() -> impl Iterator<Item = Self> {
                (0..TABLE.len() as u32).map(Self)
            }

            /// Every built-in kind, and every custom kind that this process has used.
            #[doc(hidden)]
            pub fn known() -> impl Iterator<Item = Self> {
                let custom = CUSTOM.read().unwrap_or_else(std::sync::PoisonError::into_inner).len();
                (0..(TABLE.len() + custom) as u32).map(Self)
            }

            /// The kind of a row. A new custom row is added after the others.
            fn at(row: &'static $row) -> Self {
                if let Some(kind) = TABLE.iter().position(|known| known == row) {
                    return Self(kind as u32);
                }
                let find = |custom: &[&$row]| custom.iter().position(|known| *known == row).map(|place| TABLE.len() + place);
                let known = find(&CUSTOM.read().unwrap_or_else(std::sync::PoisonError::into_inner));
                if let Some(kind) = known {
                    return Self(kind as u32);
                }
                let mut custom = CUSTOM.write().unwrap_or_else(std::sync::PoisonError::into_inner);
                let kind = find(&custom).unwrap_or_else(|| {
                    custom.push(row);
                    TABLE.len() + custom.len() - 1
                });
                Self(kind as u32)
            }

            /// A key for sorting. The order does not depend on which custom texts this process used first.
            pub(crate) fn order(self) -> (u32, &'static str, &'static str) {
                let row = self.row();
                if self.0 < TABLE.len() as u32 { (self.0, "", "") } else { (u32::MAX, row.name, row.text()) }
            }

            /// The row in the table of kinds.
            pub fn row(self) -> &'static $row {
                let (place, custom) = (self.0 as usize, CUSTOM.read().unwrap_or_else(std::sync::PoisonError::into_inner));
                TABLE.get(place).unwrap_or_else(|| custom[place - TABLE.len()])
            }
        }

        macro_rules! each {
            ($d self:expr, $d member:ident => $d value:expr) => {
                match $d self {
                    $($enum::$variant($d member) => $d value,)*
                    $enum::Custom($d member) => $d value,
                }
            };
        }
    };
}

pub(crate) use kinds;
