// Package dicom is the one place where untrusted DICOM bytes are parsed. Open takes hostile bytes to a pipeline.Instance,
// DecodeFrame takes an Instance to native pixel words, Write takes a data set back to a file.
//
// A bounded walker of our own stands in front of everything: no length is believed before it was compared with the bytes that
// are left; nesting, elements, fragments and memory are capped; only transfer syntaxes of the standard pass. Since the walker
// has seen every element by then, it makes the header itself: github.com/suyashkumar/dicom gives the data dictionary and writes
// data sets, and the tests compare our headers with its parse. It does not parse here, because it reads no ISO 2022 or Thai text
// and no SV, UV or OV, panics at transfer syntaxes that it does not know, and needs memory out of proportion to nested sequences.
//
// Each transfer syntax registers itself with how its frames are decoded, or that they cannot be. RLE and JPEG-LS are decoded by our
// own code; JPEG, JPEG 2000 and HTJ2K by the C and C++ libraries of npm dcmjs-codecs in a WebAssembly sandbox (SetCodecModule),
// behind a check of each codestream's sizes. Where that module is missing, only the syntaxes that need it are refused.
//
// Memory for any input stays below 64 MB + 8 times the file + 4 times the image that its header declares.
package dicom
