// Package sr turns a pipeline.Reading into DICOM Structured Reports: the findings, machine-readable, as TID 1500 in Comprehensive
// 3D SR, and the drafted narrative as TID 2000 in Basic Text SR (PS3.16).
//
// Each result format is one file that registers itself. Nothing here reads a clock or draws a random number: the same Input makes
// the same data sets, UIDs included. What a document says is a draft of software, and every document says that.
package sr
