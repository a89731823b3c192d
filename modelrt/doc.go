// Package modelrt runs model bundles on ONNX Runtime: it checks a bundle, makes the external weights of its graphs from the base
// model, and reads images into pipeline.Reading values. It is the only package that uses cgo.
//
// The order of use is Start (once a process), Open (once a bundle), Read (once an image). docs/bundle.md describes the bundle.
package modelrt
