// Package dicom is the one place where untrusted DICOM bytes are parsed. Open takes hostile bytes to a pipeline.Instance,
// DecodeFrame takes an Instance to native pixel words, Encode and Write take a data set back to bytes.
//
// A bounded walker of our own stands in front of everything: no length is believed before it was compared with the bytes that
// are left, nesting, elements, fragments and memory are capped, and only transfer syntaxes of the standard pass. Each transfer
// syntax registers itself with how its frames are decoded, or that we cannot.
package dicom
