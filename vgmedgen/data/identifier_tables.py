"""Attributes of a DICOM header in which a name, a place or a number of somebody may stand.

All of the Basic Application Level Confidentiality Profile (DICOM PS3.15, table E.1-1 of
2026c) that is text, an identifier or a position, and what the dictionary has besides of
the same kind. Persons' names are not listed: they are known by their type. Let alone are
what names nobody: codes and their meanings, manufacturer, model and software versions,
UIDs, numbers, and dates of the examination.
"""

PSEUDONYMS = frozenset(
    {
        *("ClinicalTrialSubjectID", "ClinicalTrialSubjectReadingID"),
        *("PatientID", "PatientName", "StudyID"),
    }
)
"""What may name the patient otherwise where the patient's identity was removed."""

DESCRIPTIONS = frozenset(
    {
        # of the examination, its order and its steps
        *("AcquisitionContextDescription", "AcquisitionDeviceProcessingDescription"),
        *("AcquisitionFieldOfViewLabel", "AcquisitionProtocolDescription"),
        *(
            "AcquisitionProtocolName",
            "BolusDescription",
            "ChannelDerivationDescription",
        ),
        *("ChannelLabel", "ContentDescription", "ContrastBolusAgent"),
        *("ContributionDescription", "DecompositionDescription"),
        *("DerivationDescription", "EthnicGroup", "HL7InstanceIdentifier"),
        *("IndicationLabel", "InterpretationID", "ModifiedImageDescription"),
        *("MultienergyAcquisitionDescription", "MultiplexGroupLabel"),
        *("PerformedProcedureStepDescription", "PerformedProcedureStepID"),
        *(
            "PerformedProcedureTypeDescription",
            "PositionAcquisitionTemplateDescription",
        ),
        *("PositionAcquisitionTemplateName", "ProtocolName", "PyramidDescription"),
        *("PyramidLabel", "RequestedContrastAgent", "RequestedProcedureDescription"),
        *("RequestedProcedureDescriptionTrial", "RequestedProcedureID"),
        *(
            "RequestedSeriesDescription",
            "ResultsID",
            "ScheduledProcedureStepDescription",
        ),
        *("ScheduledProcedureStepID", "SeriesDescription", "StudyDescription"),
        *("UserContentLabel", "UserContentLongLabel", "WaveformFilterDescription"),
        # of annotations and specimens
        *("AnnotationGroupDescription", "AnnotationGroupLabel", "BarcodeValue"),
        *("ContainerComponentID", "ContainerDescription", "ContainerIdentifier"),
        *("ROIDescription", "ROIGenerationDescription", "ROIName"),
        *("ROIObservationDescription", "ROIObservationLabel", "SlideIdentifier"),
        *("SpecimenIdentifier", "SpecimenShortDescription"),
        # places, and who answers for something there
        *("AssignedLocation", "CertificateOfSigner", "CustodialOrganizationSequence"),
        *("HumanPerformerOrganization", "InstitutionCodeSequence"),
        *("InstitutionalDepartmentName", "InterpretationIDIssuer"),
        *("IssuerOfAdmissionID", "IssuerOfServiceEpisodeID", "LocalNamespaceEntityID"),
        *("ModifyingSystem", "OrderEntererLocation", "PerformedLocation"),
        *("PerformedStationGeographicLocationCodeSequence",),
        *("PerformedStationNameCodeSequence", "RequestedProcedureLocation"),
        *("RequestingService", "ResponsibleOrganization", "ResultsIDIssuer"),
        *("ScheduledProcedureStepLocation",),
        *("ScheduledStationGeographicLocationCodeSequence",),
        *("ScheduledStationNameCodeSequence", "ScheduledStudyLocation"),
        *("SourceOfPreviousValues", "StudyIDIssuer", "TopicAuthor"),
        *("UniversalEntityID", "VerifyingOrganization"),
        # machines, by which a place is known
        *("CassetteID", "DestinationAE", "DetectorID", "DeviceAlternateIdentifier"),
        *("DeviceDescription", "DeviceID", "DeviceLabel", "DeviceSerialNumber"),
        *("DeviceSettingDescription", "EntityDescription", "EntityLabel"),
        *("EntityLongLabel", "EntityName", "FlowIdentifier", "GantryID", "GeneratorID"),
        *("HardcopyCreationDeviceID", "LensSerialNumber", "LongDeviceDescription"),
        *("ManufacturerDeviceIdentifier", "ModifyingDeviceID", "NetworkID"),
        *("Originator", "PerformedStationAETitle", "PerformedStationName", "PlateID"),
        *("ReceivingAE", "RequestingAE", "RetrieveAETitle", "ScheduledStationAETitle"),
        *("ScheduledStationName", "ScheduledStudyLocationAETitle"),
        *("SecondaryCaptureDeviceID", "SourceIdentifier", "SourceSerialNumber"),
        *("StationAETitle", "StationName", "TreatmentMachineName"),
        *("UniqueDeviceIdentifier", "XRayDetectorID", "XRayDetectorLabel"),
        *("XRaySourceID",),
        # addresses of files
        *("FileAccessURI", "FilenameInContainer", "FolderAccessURI", "RetrieveURI"),
        *("RetrieveURL", "StorageURL", "StoredInstanceBaseURI"),
        # of a clinical trial
        *("ClinicalTrialCoordinatingCenterName", "ClinicalTrialProtocolID"),
        *("ClinicalTrialProtocolEthicsCommitteeApprovalNumber",),
        *("ClinicalTrialProtocolEthicsCommitteeName", "ClinicalTrialProtocolName"),
        *("ClinicalTrialSeriesDescription", "ClinicalTrialSeriesID"),
        *("ClinicalTrialSiteID", "ClinicalTrialSiteName", "ClinicalTrialSponsorName"),
        *("ClinicalTrialTimePointDescription", "ClinicalTrialTimePointID"),
        *("IssuerOfClinicalTrialProtocolID", "IssuerOfClinicalTrialSeriesID"),
        *("IssuerOfClinicalTrialSiteID", "IssuerOfClinicalTrialSubjectID"),
        *("IssuerOfClinicalTrialSubjectReadingID",),
        *("IssuerOfClinicalTrialTimePointID",),
        # of radiotherapy
        *("BeamDescription", "CompensatorDescription", "ConceptualVolumeDescription"),
        *("ConceptualVolumeCombinationDescription", "DisplacementReferenceLabel"),
        *("DoseReferenceDescription", "EquipmentFrameOfReferenceDescription"),
        *("FilterLookupTableDescription", "FixationDeviceDescription"),
        *("FractionGroupDescription", "InterlockDescription"),
        *("InterlockOriginDescription", "PatientSetupPhotoDescription"),
        *("PrescriptionDescription", "RadiationDoseIdentificationLabel"),
        *("RadiationDoseInVivoMeasurementLabel", "RadiationGenerationModeDescription"),
        *("RadiationGenerationModeLabel", "RTAccessoryDeviceSlotID"),
        *("RTAccessoryHolderSlotID", "RTPlanDescription", "RTPlanLabel", "RTPlanName"),
        *("RTPrescriptionLabel", "RTToleranceSetLabel", "RTTreatmentApproachLabel"),
        *("RespiratoryMotionCompensationTechniqueDescription",),
        *("SetupTechniqueDescription", "ShieldingDeviceDescription"),
        *("StructureSetDescription", "StructureSetLabel", "StructureSetName"),
        *("TreatmentPositionGroupLabel", "TreatmentSite", "TreatmentSites"),
        *("TreatmentToleranceViolationDescription",),
    }
)
"""Descriptions, places and machines: they lead to somebody who knows the hospital, and
stay behind where the patient's identity was removed."""

TEXTS = frozenset(
    {
        *("AcquisitionComments", "AdditionalPatientHistory"),
        *("AdmittingDiagnosesDescription", "Allergies"),
        *("ApprovalStatusFurtherDescription", "Arbitrary", "AssertionComments"),
        *("AssessmentSummaryDescription", "AudioComments", "AudioSampleData"),
        *("CalculationComment", "CommentsOnPatientPerformanceOfVisualField"),
        *("CommentsOnRadiationDose", "CommentsOnThePerformedProcedureStep"),
        *("CommentsOnTheScheduledProcedureStep",),
        *("ConfidentialityConstraintOnPatientDataDescription", "CurveDescription"),
        *(
            "CurveLabel",
            "DischargeDiagnosisDescription",
            "DocumentTitle",
            "DoseComment",
        ),
        *("FractionationNotes", "FrameComments"),
        *("FrameOfReferenceTransformationComment", "IdentificationDescriptionTrial"),
        *("IdentifyingComments", "ImageComments", "ImagePresentationComments"),
        *("ImagingServiceRequestComments", "Impressions", "IndicationDescription"),
        *("InformationSummary", "InstructionPerformanceComment"),
        *("InterpretationDiagnosisDescription", "InterpretationText", "LabelText"),
        *("MakerNote", "MedicalAlerts", "NonconformingDataElementValue"),
        *("ObservationDescription", "Occupation", "OverlayComments"),
        *("OverlayDescription", "OverlayLabel", "OverrideReason", "PatientComments"),
        *("PatientState", "PatientTransportArrangements"),
        *("PatientTreatmentPreparationMethodDescription",),
        *("PatientTreatmentPreparationProcedureParameterDescription",),
        *("PotentialDiagnosticTasks", "PotentialReasonsForProcedure", "PreMedication"),
        *("PrescriptionNotes", "PriorTreatmentDoseDescription"),
        *("ReasonForCancellation", "ReasonForChannelOmissionDescription"),
        *("ReasonForOmissionDescription", "ReasonForStudy", "ReasonForSuperseding"),
        *("ReasonForTheImagingServiceRequest", "ReasonForTheRequestedProcedure"),
        *("ReasonForVisit", "ReportStatusCommentTrial", "RequestedProcedureComments"),
        *("ResultsComments", "RTPhysicianIntentNarrative", "SelectorAEValue"),
        *("SelectorLOValue", "SelectorLTValue", "SelectorOBValue", "SelectorSHValue"),
        *("SelectorSTValue", "SelectorUCValue", "SelectorUNValue", "SelectorURValue"),
        *("SelectorUTValue", "ServiceEpisodeDescription", "SetupImageComment"),
        *("SOPAuthorizationComment", "SpecialNeeds", "SpecimenDescriptionTrial"),
        *(
            "SpecimenDetailedDescription",
            "StudyComments",
            "SubstanceAdministrationNotes",
        ),
        *("SurfaceComments", "SystemStatusComment", "TestResultComment"),
        *("TextComments", "TextString", "TextValue", "TopicKeywords", "TopicSubject"),
        *("TopicTitle", "TransactionStatusComment", "TreatmentStatusComment"),
        *("TreatmentTechniqueNotes", "UnformattedTextValue", "VisitComments"),
    }
)
"""Free text, of which nobody can tell what a person wrote into it."""

IDENTIFIERS = frozenset(
    {
        # numbers under which a hospital or somebody else keeps the patient
        *("AccessionNumber", "AdmissionID", "BoardingPassID"),
        *("FillerOrderNumberImagingServiceRequest", "FillerOrderNumberProcedure"),
        *("FillerOrderNumberImagingServiceRequestRetired",),
        *("InsurancePlanIdentification", "IssuerOfPatientID", "ItineraryID"),
        *("MedicalRecordLocator", "OtherPatientIDs", "OwnerID"),
        *("PatientInsurancePlanCodeSequence", "PersonIdentificationCodeSequence"),
        *("PlacerOrderNumberImagingServiceRequest", "PlacerOrderNumberProcedure"),
        *("PlacerOrderNumberImagingServiceRequestRetired", "ServiceEpisodeID"),
        *("SpecimenAccessionNumber",),
        # who somebody is
        *("BranchOfService", "CameraOwnerName", "MilitaryRank", "PatientBirthDate"),
        *("PatientBirthDateInAlternativeCalendar", "PatientBirthTime"),
        *("PatientDeathDateInAlternativeCalendar", "PatientReligiousPreference"),
        # where somebody is found
        *("AddressTrial", "ContactDisplayName", "ContactURI", "CountryOfResidence"),
        *("CurrentPatientLocation", "DistributionAddress", "GPSAreaInformation"),
        *("GPSDestLatitude", "GPSDestLongitude", "GPSLatitude", "GPSLongitude"),
        *("InstitutionAddress", "InstitutionName", "OrderCallbackPhoneNumber"),
        *("OrderCallbackTelecomInformation", "PatientAddress"),
        *("PatientInstitutionResidence", "PatientTelecomInformation"),
        *("PatientTelephoneNumbers", "PersonAddress", "PersonTelecomInformation"),
        *("PersonTelephoneNumbers", "ReferringPhysicianAddress"),
        *("ReferringPhysicianTelephoneNumbers", "RegionOfResidence"),
        *("ScheduledPatientInstitutionResidence", "TelephoneNumberTrial"),
        # what holds anything
        *("DataSetTrailingPadding", "EncapsulatedDocument", "PrivateInformation"),
    }
)
"""What says by itself who or where somebody is, or leads there."""

IDENTIFYING = PSEUDONYMS | DESCRIPTIONS | TEXTS | IDENTIFIERS

EARLIER = frozenset(
    {
        *("ModifiedAttributesSequence", "NonconformingModifiedAttributesSequence"),
        *("OtherPatientIDsSequence", "ReferencedPatientAliasSequence"),
    }
)
"""Sequences that hold what the header said before, and the patient's other names."""
