// What the programs of `inspect --code rust` use of the crate of this name, without its definitions.
#[derive(Debug)]
pub struct Error;
pub type Result<T> = std::result::Result<T, Error>;

pub mod value {
    use super::Result;

    pub struct DynValue;
    pub struct Tensor<T>(std::marker::PhantomData<T>);
    pub struct Shape;

    impl<T> Tensor<T> {
        pub fn from_array(_: (Vec<i64>, Vec<T>)) -> Result<Tensor<T>> {
            unimplemented!()
        }
    }
    impl<T> From<Tensor<T>> for DynValue {
        fn from(_: Tensor<T>) -> DynValue {
            DynValue
        }
    }
    impl DynValue {
        pub fn try_extract_tensor<T>(&self) -> Result<(&Shape, &[T])> {
            unimplemented!()
        }
    }
}

pub mod session {
    use super::{value::DynValue, Result};

    pub struct Session;
    pub struct SessionBuilder;
    pub struct SessionOutputs<'s>(&'s Session);

    impl Session {
        pub fn builder() -> Result<SessionBuilder> {
            unimplemented!()
        }
        pub fn run<'s>(&'s mut self, _: Vec<(&str, DynValue)>) -> Result<SessionOutputs<'s>> {
            unimplemented!()
        }
    }
    impl SessionBuilder {
        pub fn commit_from_file<P: AsRef<std::path::Path>>(self, _: P) -> Result<Session> {
            unimplemented!()
        }
    }
    impl std::ops::Index<&str> for SessionOutputs<'_> {
        type Output = DynValue;
        fn index(&self, _: &str) -> &DynValue {
            unimplemented!()
        }
    }
}

#[macro_export]
macro_rules! inputs {
    ($($name:expr => $value:expr),+ $(,)?) => {
        vec![$(($name, $crate::value::DynValue::from($value))),+]
    };
}
