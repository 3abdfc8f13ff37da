//! The settings that are one of a few words.

/// A closed set of words, as a setting spells them.
pub(super) trait Choice: Copy + PartialEq + 'static {
    /// Every word with its meaning.
    const ALL: &'static [(&'static str, Self)];
    /// Added to what an error says was expected, such as a word that a later version will know.
    const NOTE: &'static str;
}

macro_rules! choice {
    (
        $(#[$meta:meta])*
        $Name:ident $(, note $note:literal)? {
            $( $(#[$variant_meta:meta])* $Variant:ident = $word:literal ),+ $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $Name {
            $( $(#[$variant_meta])* $Variant, )+
        }

        impl Choice for $Name {
            const ALL: &'static [(&'static str, Self)] = &[$( ($word, Self::$Variant), )+];
            const NOTE: &'static str = concat!("" $(, $note)?);
        }
    };
}

choice! {
    /// What happens to a callback from an address outside `callbacks.allow_cidrs`.
    AllowMode {
        /// It is stored when its secret or password is right, and reported.
        Report = "report",
        /// It is refused.
        Enforce = "enforce",
    }
}

choice! {
    /// What the gateway registers at ThingSpace by itself.
    RegisterPolicy {
        /// Nothing: it reports.
        Never = "never",
        /// Itself, where no listener is registered.
        IfUnclaimed = "if_unclaimed",
        /// Itself, over whatever listener is registered.
        Replace = "replace",
    }
}

choice! {
    /// The HTTP method of the 5G BI plan change, about which Verizon's own documents disagree.
    FiveGBiHttpMethod {
        /// `POST`.
        Post = "POST",
        /// `PUT`, as the SDKs send it.
        Put = "PUT",
    }
}

choice! {
    /// What keeps the journal.
    JournalEngine {
        /// SQLite in one directory, for one replica.
        Sqlite = "sqlite",
    }
}

choice! {
    /// Who may call.
    AuthMode {
        /// Everybody who can reach the port.
        None = "none",
    }
}

choice! {
    /// How log lines look.
    LogFormat {
        /// Readable on a terminal, JSON otherwise.
        Auto = "auto",
        /// One JSON object a line.
        Json = "json",
        /// Readable lines.
        Text = "text",
    }
}

choice! {
    /// How an OpenTelemetry collector is spoken to.
    OtlpProtocol {
        /// OTLP over gRPC.
        Grpc = "grpc",
        /// OTLP over HTTP, with protobuf bodies.
        HttpProtobuf = "http/protobuf",
    }
}

choice! {
    /// The order in which the sandbox sends the callbacks of one request.
    CallbackOrder {
        /// The order of the devices in the request.
        AsSent = "as_sent",
        /// The last device first.
        Reversed = "reversed",
        /// Any order; the same one for the same seed.
        Shuffled = "shuffled",
    }
}

choice! {
    /// How often and how soon the sandbox sends a callback again that nobody took.
    ResendPolicy {
        /// Three more times, a second apart.
        Quick = "quick",
        /// Once more after 1.3 s, then no more, as seen on ThingSpace.
        Measured = "measured",
        /// Three more times, five minutes apart.
        Documented = "documented",
    }
}
