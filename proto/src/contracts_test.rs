//! Field numbers never change their meaning.

use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet};

const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
const CONTRACTS: &str = include_str!("../contracts.txt");

fn field_line(scope: &str, field: &FieldDescriptorProto) -> String {
    let repeated = if field.label() == Label::Repeated { "repeated " } else { "" };
    let optional = if field.proto3_optional() { "optional " } else { "" };
    let kind = match field.type_name.as_deref() {
        Some(name) => name.trim_start_matches('.').to_owned(),
        None => format!("{:?}", field.r#type()).to_lowercase(),
    };
    debug_assert!(field.r#type() != Type::Group);
    format!("{scope}.{} = {} {repeated}{optional}{kind}\n", field.name(), field.number())
}

fn message_lines(scope: &str, message: &DescriptorProto, lines: &mut Vec<String>) {
    let scope = format!("{scope}.{}", message.name());
    lines.extend(message.field.iter().map(|field| field_line(&scope, field)));
    message.nested_type.iter().for_each(|nested| message_lines(&scope, nested, lines));
    message.enum_type.iter().for_each(|nested| enum_lines(&scope, nested, lines));
}

fn enum_lines(scope: &str, definition: &EnumDescriptorProto, lines: &mut Vec<String>) {
    let values = definition.value.iter();
    lines.extend(values.map(|value| format!("{scope}.{}.{} = {}\n", definition.name(), value.name(), value.number())));
}

#[test]
fn every_field_number_is_the_one_of_the_golden_copy() {
    let set = FileDescriptorSet::decode(DESCRIPTORS).expect("the build script wrote it");
    let mut lines = Vec::new();
    for file in &set.file {
        file.message_type.iter().for_each(|message| message_lines(file.package(), message, &mut lines));
        file.enum_type.iter().for_each(|definition| enum_lines(file.package(), definition, &mut lines));
    }
    lines.sort();
    let found = lines.concat();
    assert_eq!(found, CONTRACTS, "a deliberate addition goes into contracts.txt; nothing else may change");
}
